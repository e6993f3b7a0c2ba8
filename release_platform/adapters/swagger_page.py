"""`/docs`: Swagger UI from this machine, for our HTTP servers.

A page that loaded its scripts from elsewhere would show nothing on a machine without internet.
"""

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

FILES = "/docs/files"
"""Where the page's scripts and styles are."""


def add_swagger_page(app: FastAPI) -> None:
    """Adds `/docs`, and the files that it loads, to an application that has none."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(  # relative addresses, so that they hold behind any prefix of a proxy
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url=f".{FILES}/swagger-ui-bundle.js",
            swagger_css_url=f".{FILES}/swagger-ui.css",
            swagger_favicon_url=f".{FILES}/favicon-32x32.png",
        )

    app.include_router(router)
    app.mount(FILES, StaticFiles(packages=[("fastapi_swagger", "resources")]))  # found, not imported
