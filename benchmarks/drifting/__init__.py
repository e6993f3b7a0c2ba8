"""How drift alarms fare on data whose drift is known."""
