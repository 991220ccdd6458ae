"""What a file may say of a body whose licence does not let its template leave."""

from ..body.model import BodyModel

LICENSED_BODY = (
    "The body '{body}' is licensed: its licence does not let its template be passed on, so that {left_out} were left "
    "out. Where your licence allows it, ask for them with `include_licensed_body` (`--include-licensed-body`)."
)


def refusal_of_page(body: BodyModel, include_licensed_body: bool) -> str | None:
    """Why there may be no page of an avatar on this body, which without its template would not move; or None."""
    if body.redistributable or include_licensed_body:
        return None
    return (
        f"the body '{body.assets.name}' is licensed and its template, expression directions and skinning weights may "
        "not be passed on; without them there is no page that moves. If your licence lets you, ask for them with "
        "`include_licensed_body` (`--include-licensed-body`) and keep the page to yourself."
    )


def refusal_of_mesh(body: BodyModel, include_licensed_body: bool) -> str | None:
    """Why the body's mesh may not be handed on, or None."""
    if body.redistributable or include_licensed_body:
        return None
    return (
        f"the body '{body.assets.name}' is licensed and its mesh may not be passed on. If your licence lets you, ask "
        "for it with `include_licensed_body`; the splats alone need no such leave."
    )
