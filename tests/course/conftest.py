"""The browser, for the outside readers that run in one."""

from chromium import browser
