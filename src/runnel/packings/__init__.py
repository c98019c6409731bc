"""Packings: how documents of many lengths become rows with little padding. One page an algorithm."""
