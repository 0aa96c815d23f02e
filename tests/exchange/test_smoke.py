from tests.support.gateway import *
from tests.support.upstream import *
async def test_it():
    async with scripted_upstream(OK) as up, running_gateway(up.port) as gw:
        r = await gw.ask(POST)
        print(r, up.only.head, await gw.next_record())
        print(gw.sample("gateway_requests_total", code="200"))
