"""Many cases in one compiled program, each checked and reported by its name."""

import jax


def together(functions, *args):
    """name -> the function's result, from one compiled program, or its exception in tracing."""
    failed = {}

    def run(*args):
        found = {}
        for name, f in functions.items():
            try:
                found[name] = f(*args)
            except Exception as error:
                failed[name] = error
        return found

    return jax.device_get(jax.jit(run)(*args)) | failed


def each(results, check):
    """Calls check(name, result) for every result, and reports all failures by name."""
    wrong = {}
    for name, result in results.items():
        try:
            if isinstance(result, Exception):
                raise result
            check(name, result)
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    assert not wrong, "\n".join(f"{name}: {words}" for name, words in wrong.items())
