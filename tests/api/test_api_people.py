"""People and tokens as an administrator sees them, and the audit trail."""

from __future__ import annotations

from api_world import World


def test_people_and_their_tokens(world: World) -> None:
    made = world.post("/users", {"login": "ada@example.org", "role": "author"})
    assert (made.status_code, made.get_json()["role"]) == (201, "author")
    token = world.post("/tokens", {"login": "ada@example.org", "name": "laptop"}).get_json()
    assert token["token"].startswith("mst_")
    assert token["expires_at"] is None
    headers = {"Authorization": f"Bearer {token['token']}"}
    assert world.ask("GET", "/api/v1/packs", "", headers=headers).status_code == 200
    assert world.ask("GET", "/api/v1/users", "", headers=headers).status_code == 403
    logins = [one["login"] for one in world.get("/users", "admin")["items"]]
    assert logins == ["ada@example.org", "admin", "approver", "author", "operator", "viewer"]
    listed = world.get("/tokens", "admin")
    assert token["token"] not in str(listed)
    assert "sha256" not in str(listed)
    (row,) = [one for one in listed["items"] if one["name"] == "laptop"]
    assert row["used_at"] is not None


def test_lists_of_tokens_and_entries_page(world: World) -> None:
    for number in range(5):
        world.post("/tokens", {"login": "viewer", "name": str(number)})
    for path in ("/tokens", "/audit"):
        everything = world.get(f"{path}?limit=200", "admin")["items"]
        seen, cursor = [], None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = world.get(path, "admin", query_string=query)
            seen += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert [one["id"] for one in seen] == [one["id"] for one in everything]


def test_the_audit_trail_says_who_did_what(world: World) -> None:
    execution = world.run()
    world.post(f"/workflow-executions/{execution}/cancel", {"reason": "wrong"}, "operator")
    world.post("/users", {"login": "viewer", "role": "admin"})
    entries = world.get("/audit", "admin")["items"]
    told = [(one["person"], one["action"], one["subject"], one["outcome"]) for one in entries[:4]]
    assert told == [
        ("admin", "user.create", "viewer", "refused"),
        ("admin", "execution.end", execution, "cancelled"),
        ("operator", "execution.cancel", execution, "accepted"),
        ("admin", "execution.submit", execution, "accepted"),
    ]
    assert entries[0]["detail"]["code"] == "user-exists"
    assert entries[2]["detail"]["reason"] == "wrong"


def test_the_audit_trail_is_filtered_by_person_action_and_subject(world: World) -> None:
    first, _ = world.run(), world.run()
    world.post(f"/workflow-executions/{first}/cancel", {}, "operator")

    def told(**query: str) -> list[tuple[str, str]]:
        found = world.get("/audit", "admin", query_string=query)["items"]
        return [(one["action"], one["subject"]) for one in found]

    assert told(person="operator") == [("execution.cancel", first)]
    assert told(subject=first) == [
        ("execution.end", first),
        ("execution.cancel", first),
        ("execution.submit", first),
    ]
    assert len(told(action="execution.submit")) == 2
    assert told(action="execution.submit", subject=first) == [("execution.submit", first)]
    assert told(person="nobody") == []
    page = world.get("/audit?action=execution.submit&limit=1", "admin")
    rest = world.get(f"/audit?action=execution.submit&limit=1&cursor={page['next_cursor']}", "admin")
    assert [one["subject"] for one in (*page["items"], *rest["items"])][1] == first
    assert rest["next_cursor"] is None
