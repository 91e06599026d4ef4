"""What is asked elsewhere before a call is decided: no secret leaves by it, and whose an object is always counts."""

from __future__ import annotations

from conftest import Serve
from guarded_call import ChokingModerator, Said, plain

SECRET = "sk-" + "proj-" + "a1B2c3D4e5F6g7H8i9J0k1L2"


def test_moderator_sees_no_secret_that_the_model_would_not_see(serve: Serve) -> None:
    """The moderation API is somebody else's too: it gets what the rules leave."""
    with ChokingModerator() as moderator:
        gateway = serve(moderation_url=moderator.base_url)
        answer = gateway.chat({"messages": [{"role": "user", "content": f"My key is {SECRET}, does it work?"}]})
        assert answer.status == 200, answer.body
        asked = b"".join(request.body for request in moderator.requests)
        assert b"My key is [redacted:secret]" in asked and SECRET.encode() not in asked


def test_another_tenants_object_is_refused_in_shadow_mode_too(serve: Serve) -> None:
    """Shadow mode tries a policy out; whose an object is, is none. One that nobody is known to own passes there."""
    gateway = serve(mode="shadow")
    owner, other = gateway.key(tenant="herons"), gateway.key(tenant="storks")

    def go_on(name: str, key: str) -> int:
        body = {"model": "gpt-4o-mini", "input": "Go on.", "previous_response_id": name}
        return gateway.http("POST", "/v1/responses", body, key=key).status

    gateway.upstream.reply(json=plain("responses", Said(text="A bird."), id="resp_heron"))
    first = gateway.http("POST", "/v1/responses", {"model": "gpt-4o-mini", "input": "A bird?"}, key=owner)
    assert first.status == 200
    assert go_on("resp_heron", other) == 404
    assert len(gateway.upstream.requests) == 1
    gateway.upstream.reply(json=plain("responses", Said(text="It flies."), id="resp_next"))
    assert go_on("resp_made_elsewhere", other) == 200
