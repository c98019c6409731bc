"""Forecasting: any model of windows, over tables, with its protocol and its metrics."""
