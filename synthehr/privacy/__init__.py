"""The privacy unit, the budget, the account, and the one door to private rows."""
