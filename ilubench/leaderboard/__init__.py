"""The public leaderboards: records, submission, checking, verification, pages."""
