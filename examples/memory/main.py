"""An agent's week: it learns facts, corrects and forgets them, looks back in time, and erases a person's data."""

import json
from datetime import UTC, datetime, timedelta

from rich.console import Console

from pgrecall import Fact, SubjectErased, connect

console = Console(width=100, highlight=False, markup=False)
say = console.print


def section(title):
    console.rule(title, align="left", style="cyan")


def main():
    with connect() as db:  # no URL: starts and migrates the embedded Postgres
        db.create_tenant("bistro", reopen=True)  # the previous run deleted it
        bistro = db.tenant("bistro")
        agent = bistro.memory(actor="waiter-agent", default_ttl={"visit": timedelta(days=90)})

        section("Monday: it learns facts")
        diet = agent.put_fact(Fact("ann", "preference", "diet", "Ann eats no meat.", confidence=0.7))
        agent.put_facts(
            [
                Fact("ann", "visit", "2026-03-02", {"table": 4, "guests": 2}, "Ann came with a friend."),
                Fact("ann", "allergy", "nuts", {"severity": "high"}, "Ann is allergic to nuts.", confidence=1.0),
                Fact("bob", "preference", "seat", "Bob likes the window."),
            ]
        )
        show(agent.search_facts(subject="ann", order_by="confidence"))
        tuesday = datetime.now(UTC)

        section("Wednesday: it corrects one")
        new = Fact("ann", "preference", "diet", "Ann eats fish, but no meat.", confidence=0.95)
        agent.put_fact(new, reason="she said")
        show(agent.search_facts(subject="ann", text="may she have meat or fish?"))

        section("Thursday: what did it believe on Tuesday?")
        show(agent.search_facts(subject="ann", kind="preference", as_of=tuesday))
        say(f"and in order: {[fact.value for fact in reversed(agent.history(diet.id))]}")

        section("Friday: it forgets a fact and restores it")
        gone = agent.delete(key="2026-03-02", reason="she asked")
        say(f"forgotten: {gone}, found: {agent.search_facts(kind='visit')}")
        say(f"restored: {agent.restore(key='2026-03-02', reason='she changed her mind').value}")

        section("Saturday: Ann asks for a copy of her data, then for its deletion")
        for line in list(bistro.export_subject("ann"))[1:4]:
            say(f"{json.loads(line)['table']}: {json.loads(line)['row']['value']}")
        db.on_erase(
            lambda erased: say(f"hook: erase data about {erased.subject or erased.tenant_id} in other systems too")
        )
        report = bistro.erase_subject("ann", actor="privacy desk", reason="request of March 7")
        say(f"deleted: {report['memory_facts']} versions; remaining: {sum(report.remaining.values())}")

        section("Sunday: it proves the deletion")
        hers, his = (agent.search_facts(subject=subject) for subject in ("ann", "bob"))
        say(f"facts about ann: {hers}; about bob: {len(his)}")
        try:
            agent.put_fact(Fact("ann", "preference", "diet", "a late write"))
        except SubjectErased as refusal:
            say(f"SubjectErased: {refusal}")
        for event in agent.list_events():
            say(f"{event.action:13} {event.target_id or '-':37} {(event.subject or '-')[:12]:12} {event.actor or '-'}")
        say(f"delete_tenant: {db.delete_tenant('bistro')['memory_facts']} fact; swept: {db.sweep()['memory_facts']}")


def show(facts):
    for fact in facts:
        say(f"{fact.kind}/{fact.key}: {fact.text} (confidence {fact.confidence or '-'})")


if __name__ == "__main__":
    main()
