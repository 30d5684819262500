"""I06: Parsing and formatting dates that were given."""

# expect: innocent

from datetime import date, datetime, timezone


async def workflow(ctx, input):
    begin = datetime.fromisoformat("2026-01-01T10:00:00+00:00")
    end = datetime.strptime("2026-02-01 10:00", "%Y-%m-%d %H:%M").replace(tzinfo=timezone.utc)
    day = date.fromisoformat("2026-01-15")
    inside = begin.date() <= day < end.date()
    return await ctx.call_activity("book", input={"inside": inside, "seconds": (end - begin).total_seconds()})
