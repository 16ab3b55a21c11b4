"""Which tests need a power that a driver may declare not to have (``contracts.Capabilities``)."""

from __future__ import annotations

import pytest

from celeriac.contracts import Capabilities

_WHY = {
    "leases": "a lease is a connection here: the server judges it, and hands out again at once",
    "front": "what comes back goes to the end of its queue here",
    "by_id": "messages that wait cannot be found or taken out here",
    "pauses": "queues cannot be paused here",
    "joins": "joins are not counted here",
}

_NEEDS = {
    "leases": """
        test_dead_lease test_takes_each_once test_recover_after_maintain
        test_maintain_after_recover test_judge_needs_a_lease_of_its_own
        test_outage_of_everybody_reruns_nothing test_judge_with_a_gap test_not_before_it_lapsed
        test_over_the_limit_is_handed_over test_limit_of_one test_begun_is_handed_over
        test_what_was_handed_over_is_lost_again test_unregister test_unregister_keeps_the_mark
        test_recover test_recover_nothing_running test_recover_unknown_tag
        test_recover_what_one_holds_itself test_recover_takes_each_once
        test_recover_leaves_other_slots_alone test_recover_counts_up
        test_recover_from_another_connection test_lost_one_is_claimed_alone
        test_lost_one_behind_others test_lost_one_amid_others test_lost_one_in_another_queue
        test_two_lost_ones test_released_lost_one_stays_lost test_recovered_by_another
        test_lease_taken test_begin test_begin_by_another test_unknown_lease test_collected_lease
        test_lapsed_lease_is_still_there test_caller_dies test_lease_of_the_caller
        test_renewed_lease_lives test_register_renews test_each_lease_has_its_own_length
        test_workers test_peek_in_flight test_lease_is_needed test_owner_dies
        test_kept_comes_back test_kept_is_told_again
        test_revive test_killed_while_working test_nothing_twice_without_a_count
    """,
    "front": """
        test_release test_release_part_of_a_batch test_release_keeps_the_priority
        test_peek_what_came_back
    """,
    "joins": "test_parts_of_joins_are_handed_back",
    "by_id": """
        test_waiting_and_delayed_are_handed_back test_handed_back_once test_paused_queue
        test_running_shows_in_the_heartbeat test_twice_in_flight_is_told_once
        test_until_has_passed test_comes_back_flagged test_again_never_takes_back
        test_again_can_ask_for_more test_waiting_messages_are_kept test_due_ones_up
        test_delete test_purge test_unregistered_judge test_queues test_peek_waiting
        test_peek_delayed test_all_queues test_find
        test_paging[celery-MessageState.WAITING] test_paging[None-MessageState.WAITING]
        test_paging[celery-MessageState.DELAYED] test_paging[None-MessageState.DELAYED]
        test_paging[celery-MessageState.IN_FLIGHT] test_paging[None-MessageState.IN_FLIGHT]
        test_cancelled_is_not_kept
        test_paging_while_others_go test_killed_while_publishing test_killed_while_opening
    """,
    "pauses": """
        test_paused_queues_are_left_out test_resuming_wakes test_pause_and_resume
        test_empty_queue_is_gone test_purge_of_a_paused_queue test_paused_is_not_kept
    """,
}


def skip_unless_capable(request: pytest.FixtureRequest, capabilities: Capabilities) -> None:
    """Skip the test if it needs what the driver has declared not to have."""
    names = {request.node.name, getattr(request.node, "originalname", "")}
    for power, tests in _NEEDS.items():
        if not names.isdisjoint(tests.split()) and not getattr(capabilities, power):
            pytest.skip(_WHY[power])
