"""Plugins that make tables of text, from other tables or from nothing."""
