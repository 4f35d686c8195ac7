"""A browser without scripts: follows redirects and pages that lead on, keeps cookies, fills in forms and sends them."""

from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import requests

from checks import true

TIMEOUT_S = 10
STEPS_MAX = 12


class Page(HTMLParser):
    """The text of a page and its forms: where they go, what they hold, their buttons."""

    def __init__(self, answer):
        super().__init__()
        self.url, self.status, self.headers = answer.url, answer.status_code, answer.headers
        self.forms, self.text, self.alert, self.leads_to = [], "", "", None
        self._in_form, self._in_alert = None, None
        self.feed(answer.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "form":
            action = urljoin(self.url, found.get("action") or self.url)
            self._in_form = {
                "action": action,
                "method": found.get("method", "get").lower(),
                "fields": {},
                "buttons": {},
            }
            self.forms.append(self._in_form)
        elif tag == "input" and self._in_form and found.get("name"):
            self._in_form["fields"][found["name"]] = found.get("value", "")
        elif tag == "button" and self._in_form and found.get("name"):
            self._in_form["buttons"][found.get("value", "")] = found["name"]
        elif tag == "meta" and found.get("http-equiv") == "refresh":
            self.leads_to = found["content"].partition("url=")[2]
        if found.get("role") == "alert":
            self._in_alert = tag

    def handle_endtag(self, tag):
        if tag == "form":
            self._in_form = None
        if tag == self._in_alert:
            self._in_alert = None

    def handle_data(self, data):
        self.text += data
        if self._in_alert:
            self.alert += data

    def form(self, path):
        """The form that goes to `path`, or None."""
        return next((form for form in self.forms if urlsplit(form["action"]).path == path), None)


class Browser:
    """Stays on one site; an address elsewhere ends the way and is what a method gives back."""

    def __init__(self, site):
        self.site = site
        self.session = requests.Session()
        self.session.trust_env = False

    def open(self, url):
        return self._follow(self.session.get(url, allow_redirects=False, timeout=TIMEOUT_S))

    def send(self, form, button=None, **fields):
        """Sends a form with some of its fields filled in; `button` is the value of the one that is pressed."""
        true(form["method"] == "post", f"the form is sent by {form['method']}")
        filled = form["fields"] | fields
        if button is not None:
            true(button in form["buttons"], f"there is no button {button}, only {list(form['buttons'])}")
            filled[form["buttons"][button]] = button
        return self._follow(self.session.post(form["action"], data=filled, allow_redirects=False, timeout=TIMEOUT_S))

    def _follow(self, answer):
        for _ in range(STEPS_MAX):
            if answer.is_redirect:
                true(
                    answer.status_code in (302, 303),
                    f"redirected with {answer.status_code}, which may send a form again",
                )
                to = urljoin(answer.url, answer.headers["Location"])
            else:
                page = Page(answer)
                if page.leads_to is None:
                    return page
                to = urljoin(answer.url, page.leads_to)
            if not to.startswith(f"{self.site}/"):
                return to
            answer = self.session.get(to, allow_redirects=False, timeout=TIMEOUT_S)
        raise AssertionError("redirected without end")

    def authorize(self, url, username, password, decision="allow"):
        """Logs in and decides where asked; the address elsewhere that this leads to."""
        place = self.open(url)
        if isinstance(place, Page) and (form := place.form("/oauth2/login")):
            place = self.send(form, username=username, password=password)
        if isinstance(place, Page) and (form := place.form("/oauth2/consent")):
            place = self.send(form, decision)
        if isinstance(place, Page):
            raise AssertionError(
                f"still at {urlsplit(place.url).path}, status {place.status}: {place.text.strip()[:300]}"
            )
        return place
