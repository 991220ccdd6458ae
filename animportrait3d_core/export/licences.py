"""What a file may say of a body whose licence does not let its template leave."""

LICENSED_BODY = (
    "The body '{body}' is licensed: its licence does not let its template be passed on, so that {left_out} were left "
    "out. Where your licence allows it, ask for them with `include_licensed_body`."
)
