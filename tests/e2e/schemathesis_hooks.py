"""A check for tests/e2e/schemathesis: valid requests are refused only for reasons that the description cannot express."""

import schemathesis

REASONS = (
    "No such project",
    "No such domain",
    # The operator's to say.
    "is a link-local, metadata, unspecified or multicast address",
)


@schemathesis.check
def refused_for_a_reason(ctx, response, case):
    is_as_described = case.meta is not None and case.meta.generation.mode.is_positive
    if response.status_code == 400 and is_as_described:
        assert any(reason in response.text for reason in REASONS), f"valid request refused: {response.text}"
