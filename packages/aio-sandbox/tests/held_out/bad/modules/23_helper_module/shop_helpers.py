from datetime import date, datetime


def age_in_days(since: str) -> int:
    born = date.fromisoformat(since)
    return (datetime.now().date() - born).days
