"""Acts as three users of the application, over HTTP: `python -m leads_api.walkthrough URL`.

The first `make example` runs this program, so that the lead "acme" has a history."""

from __future__ import annotations

import sys

import httpx

LEADS = """company_name,contact_name,email,domain,source,enrichment_status
Initech,Bill Lumbergh,bill@initech.example,initech.example,fair,COMPLETED
Hooli,Gavin Belson,gavin@hooli.example,hooli.example,web,PENDING
Umbrella Pharma,Alice Abernathy,alice@umbrella.example,umbrella.example,web,FAILED
Stark Industries,Pepper Potts,pepper@stark.example,stark.example,referral,COMPLETED
Wayne Enterprises,Lucius Fox,lucius@wayne.example,wayne.example,referral,PROCESSING
Tyrell Corporation,Rachael Rosen,rachael@tyrell.example,tyrell.example,fair,PENDING
Soylent AG,Robert Thorn,robert@soylent.example,soylent.example,web,PENDING
"""


class Person:
    """A user with a browser and an address. All addresses are in 127.0.0.0/8."""

    def __init__(self, url: str, name: str, address: str, browser: str) -> None:
        transport = httpx.HTTPTransport(local_address=address)
        self._client = httpx.Client(
            base_url=url, transport=transport, headers={"User-Agent": browser}
        )
        self._client.post("/login", data={"user": name})
        self._etags: dict[str, str] = {}

    def sees(self, lead: str) -> None:
        self._etags[lead] = self._client.get(f"/api/leads/{lead}").headers["ETag"]

    def does(self, method: str, path: str, expected: int, **more: object) -> httpx.Response:
        etag = self._etags.get(path.removeprefix("leads/").split("/")[0])
        headers = {"If-Match": etag} if etag else {}
        answer = self._client.request(method, f"/api/{path}", headers=headers, **more)  # type: ignore[arg-type]
        if answer.status_code != expected:
            raise RuntimeError(
                f"{method} {path}: {answer.status_code} instead of {expected}: {answer.text}"
            )
        return answer


def play(url: str) -> None:
    maria = Person(
        url,
        "maria",
        "127.0.0.7",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    )
    tom = Person(
        url,
        "tom",
        "127.0.0.23",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.5 Safari/605.1.15",
    )
    aisha = Person(url, "aisha", "127.0.0.42", "import-script/1.0")

    aisha.does("POST", "leads/import", 201, files={"file": ("leads.csv", LEADS, "text/csv")})
    acme = {
        "id": "acme",
        "company_name": "Acme Corporation",
        "contact_name": "Jo Kim",
        "email": "jo@acme.example",
        "source": "web",
    }
    maria.does("POST", "leads", 201, json=acme)

    # Tom and Maria open the same lead, and each saves it. Tom is faster, so Maria gets a conflict.
    # She loads the lead again and saves it.
    maria.sees("acme")
    tom.sees("acme")
    tom.does(
        "PATCH",
        "leads/acme",
        200,
        json={"contact_name": "Jo Kim-Park", "enrichment_status": "COMPLETED"},
    )
    maria.does("PATCH", "leads/acme", 412, json={"contact_name": "Joanna Kim"})
    maria.sees("acme")
    maria.does("PATCH", "leads/acme", 200, json={"contact_name": "Joanna Kim-Park"})

    # The database refuses an e-mail address that another lead has, and an id that already exists.
    tom.sees("acme")
    tom.does("PATCH", "leads/acme", 409, json={"email": "Gavin@Hooli.example"})
    aisha.does("POST", "leads", 409, json=acme | {"email": "office@acme.example"})

    tom.does("DELETE", "leads/acme", 200)
    maria.sees("acme")
    maria.does("POST", "leads/acme/restore", 200)


if __name__ == "__main__":
    play(sys.argv[1])
