"""The browser, for the page of the Lens."""

from chromium import browser
