"""What travels: message types, facts, the topic table, tensor blocks. Start here."""
