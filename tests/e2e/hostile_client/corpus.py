async def check(run):
    pass
