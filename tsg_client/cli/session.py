"""What a command needs: the profile, the client of its service, and CloudAPI. Each is made when it is asked for."""

import logging
import sys
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import click

from tsg_client.client import Client
from tsg_client.cloudapi import CloudAPI
from tsg_client.errors import Misconfigured
from tsg_client.keys import keyring
from tsg_client.keys.keyring import Found
from tsg_client.profiles import Profile, Profiles, usable
from tsg_client.signer import Signer


class Session:
    """One run of `tsg`. `options` are those of the command line that go before the profile's fields."""

    def __init__(self, profile: str | None, *, role: str | None, verbose: bool, options: Mapping[str, Any]) -> None:
        self.profiles = Profiles()
        self._name = profile
        self._options = options
        self._role = role
        if verbose:
            logging.basicConfig(format="%(name)s: %(message)s", level=logging.DEBUG)

    @cached_property
    def profile(self) -> Profile:
        """The profile with the command line's options in it, whether requests can be sent by it or not."""
        return self.profiles.get(self._name).with_options(**self._options)

    @cached_property
    def key(self) -> Found:
        """The profile's key, and where it was found."""
        fingerprint = usable(self.profile).key_id or ""
        return keyring.find(fingerprint, material=self.profile.key_material, ask=_ask if sys.stdin.isatty() else None)

    @cached_property
    def signer(self) -> Signer:
        return Signer(usable(self.profile).account or "", self.key.key, user=self.profile.user)

    @cached_property
    def client(self) -> Client:
        return Client(usable(self.profile).tsg_url or "", self.signer, verify=self._verify())

    @cached_property
    def cloud(self) -> CloudAPI:
        """CloudAPI. `Misconfigured` where the profile does not say where it is."""
        if not self.profile.url:
            raise Misconfigured("names are looked up in CloudAPI, and its URL is not known (-U, TRITON_URL): give the id instead")
        return CloudAPI(self.profile.url, self.signer, verify=self._verify(), role=self._role or ",".join(self.profile.roles) or None)

    def _verify(self) -> bool:
        if self.profile.insecure:
            from urllib3.exceptions import InsecureRequestWarning  # noqa: PLC0415 - for those who ask for it

            warnings.simplefilter("ignore", InsecureRequestWarning)
        return not self.profile.insecure


def _ask(name: str) -> str:
    return str(click.prompt(f"Enter passphrase for {name}", hide_input=True, err=True))
