"""`hbtrain` with a tracking server that takes its time: what a killed driver has not delivered is much."""

import time

from hbtrain.cli.main import main
from hbtrain.tracking.tracker import Tracker

DELIVERY_S = 2.0

deliver = Tracker._send


def deliver_slowly(self, letter):
    time.sleep(DELIVERY_S)
    deliver(self, letter)


if __name__ == "__main__":
    Tracker._send = deliver_slowly
    main()
