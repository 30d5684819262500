"""B81: A lookup in a local SQLite file."""

# expect: bad: files

import sqlite3


def discount(order):
    connection = sqlite3.connect("shop.db")
    try:
        connection.execute("create table if not exists discount (name text, value int)")
        row = connection.execute("select value from discount where name = ?", (order,)).fetchone()
        return row[0] if row else 0
    finally:
        connection.close()


async def workflow(ctx, input):
    return await ctx.call_activity("charge", input=input["amount"] - discount(input["order"]))
