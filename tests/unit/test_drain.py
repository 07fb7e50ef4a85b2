"""Which connections are waited for when the API goes."""

import time

from waitress.channel import HTTPChannel

from tsg_api.server import drain


def test_the_first_request_of_a_new_connection_is_waited_for_and_an_idle_connection_is_not() -> None:
    connection = HTTPChannel.__new__(HTTPChannel)
    connection.requests, connection.creation_time = [], time.time()
    assert drain._is_busy(connection)
    connection.creation_time -= drain.NEW
    assert not drain._is_busy(connection)
    connection.total_outbufs_len = 1
    assert drain._is_busy(connection)
