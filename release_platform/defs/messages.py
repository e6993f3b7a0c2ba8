"""Messages in Dagster: the sensor that delivers what is in the outbox."""

import dagster as dg

from release_platform.adapters.receivers import receivers_of
from release_platform.defs.resources import Platform
from release_platform.domain.errors import ReleaseError
from release_platform.messages import Messages

SENSOR_INTERVAL_S = 15


def build_message_sensor() -> dg.SensorDefinition:
    """Returns the sensor `message_sensor`; its skip reason says what was sent, what failed, and what was given up."""

    @dg.sensor(
        name="message_sensor",
        minimum_interval_seconds=SENSOR_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Delivers the messages of rollbacks, aborts and drift to RELEASE_NOTIFY_URL.",
    )
    def message_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
        settings = platform.services.settings
        try:
            receivers = receivers_of(settings.notify_url.get_secret_value(), settings.notify_secret.get_secret_value())
            said = Messages(platform.services.store.outbox, receivers).deliver()
        except ReleaseError as error:
            context.log.warning(str(error))
            return dg.SkipReason(str(error))
        for line in said:
            context.log.info(line)
        return dg.SkipReason("\n".join(said) or ("nothing is due" if receivers else "RELEASE_NOTIFY_URL is not set"))

    return message_sensor
