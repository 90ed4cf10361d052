"""`hbtrain` with a tracking server that takes its time: what a killed driver has not delivered is much."""

import time

from hbtrain.cli.main import main
from hbtrain.tracking import tracker

DELIVERY_S = 2.0

deliver = tracker.deliver


def deliver_slowly(client, message):
    time.sleep(DELIVERY_S)
    deliver(client, message)


if __name__ == "__main__":
    tracker.deliver = deliver_slowly
    main()
