import asyncio

from streamer.worker.batch import Batcher


async def test_a_full_batch_goes_out_without_waiting() -> None:
    batcher: Batcher[int] = Batcher(max_batch=3, max_wait_s=60.0)
    for item in range(4):
        batcher.put(item)
    assert await asyncio.wait_for(batcher.get(), 1.0) == [0, 1, 2]
    assert len(batcher) == 1


async def test_a_lone_item_goes_out_after_max_wait() -> None:
    batcher: Batcher[str] = Batcher(max_batch=8, max_wait_s=0.02)
    loop = asyncio.get_running_loop()
    before = loop.time()
    batcher.put("only")
    assert await batcher.get() == ["only"]
    assert loop.time() - before >= 0.019


async def test_the_wait_counts_from_the_oldest_item() -> None:
    batcher: Batcher[int] = Batcher(max_batch=8, max_wait_s=0.05)
    loop = asyncio.get_running_loop()
    before = loop.time()
    batcher.put(1)
    loop.call_later(0.03, batcher.put, 2)
    assert await batcher.get() == [1, 2]
    assert loop.time() - before < 0.075


async def test_items_that_waited_for_a_busy_consumer_go_out_at_once() -> None:
    batcher: Batcher[int] = Batcher(max_batch=8, max_wait_s=0.01)
    batcher.put(1)
    await asyncio.sleep(0.02)
    batcher.put(2)
    assert await asyncio.wait_for(batcher.get(), 0.005) == [1, 2]


async def test_close_flushes_what_is_there_and_then_ends() -> None:
    batcher: Batcher[int] = Batcher(max_batch=2, max_wait_s=60.0)
    for item in range(3):
        batcher.put(item)
    batcher.close()
    assert [await batcher.get(), await batcher.get(), await batcher.get()] == [[0, 1], [2], []]


async def test_close_wakes_a_waiting_consumer() -> None:
    batcher: Batcher[int] = Batcher(max_batch=2, max_wait_s=60.0)
    waiting = asyncio.create_task(batcher.get())
    await asyncio.sleep(0)
    batcher.close()
    assert await asyncio.wait_for(waiting, 1.0) == []


async def test_early_items_go_out_while_no_other_batch_is_ready() -> None:
    batcher: Batcher[int] = Batcher(max_batch=2, max_wait_s=0.02)
    for item in (1, 2, 3):
        batcher.put_early(item)
    batcher.put(9)  # waits for another
    assert await batcher.get() == [1, 2]
    assert await batcher.get() == [9]
    assert await batcher.get() == [3]


async def test_early_items_wait_while_another_batch_is_ready() -> None:
    batcher: Batcher[int] = Batcher(max_batch=2, max_wait_s=0.02)
    batcher.put_early(1)
    for item in (7, 8, 9):
        batcher.put(item)
    await asyncio.sleep(0.03)
    assert [await batcher.get(), await batcher.get(), await batcher.get()] == [[7, 8], [9], [1]]


async def test_an_early_item_is_taken_back_unless_it_has_gone_out() -> None:
    batcher: Batcher[int] = Batcher(max_batch=2, max_wait_s=0.0)
    batcher.put_early(1)
    batcher.put_early(2)
    assert batcher.drop(1)
    assert await batcher.get() == [2]
    assert not batcher.drop(2)


async def test_close_leaves_early_items_behind() -> None:
    batcher: Batcher[int] = Batcher(max_batch=2, max_wait_s=60.0)
    batcher.put_early(1)
    batcher.put(2)
    batcher.close()
    assert [await batcher.get(), await batcher.get()] == [[2], []]
