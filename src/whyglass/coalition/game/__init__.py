"""The game: players, maskers that leave players out, and the values of coalitions."""
