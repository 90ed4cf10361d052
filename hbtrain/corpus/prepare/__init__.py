"""From a reader's texts and pairs to a prepared corpus, in memory that does not grow with the rows."""
