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
    assert logins == ["ada@example.org", "admin", "author", "operator", "viewer"]
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
    told = [(one["person"], one["action"], one["subject"], one["outcome"]) for one in entries[:3]]
    assert told == [
        ("admin", "user.create", "viewer", "refused"),
        ("operator", "execution.cancel", execution, "accepted"),
        ("admin", "execution.submit", execution, "accepted"),
    ]
    assert entries[0]["detail"]["code"] == "user-exists"
    assert entries[1]["detail"]["reason"] == "wrong"
