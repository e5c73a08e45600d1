"""What the two sides do with their joysticks while a plan is carried out."""

from __future__ import annotations

from .plans import BACK_ROWS, CATCH, CORES, Carry, Flight, Plan, Point, uphill
from .rink import BACKS, GOAL_LEFT, GOAL_RIGHT, REST, SKATERS, Rink, Stick, side_of

KEEP_OFF = (20, 12)
"""Pixels sideways and up or down that a side without the puck keeps from the one who has it."""
HOME = 54
"""The row of skates of blue's back when he keeps his goal."""
SWAY = {False: (10, 17), True: (-10, -3)}
"""Between which places the puck sways on a stick, from the skater's left edge: right of him, left of him."""


def steer(rink: Rink, plan: Plan, side: int, frame: int) -> Stick:
    """The joystick of a side in this frame."""
    skater = rink.selected(side)
    if isinstance(plan, Flight):
        goal = _in_flight(rink, plan, skater, frame)
    elif skater == plan.holder:
        return _carries(rink, plan, frame)
    elif side_of(plan.holder) == side:
        return REST
    else:
        goal = _against(rink, plan, skater, frame)
    return towards(rink.skater(skater), goal)


def towards(place: Point, goal: Point) -> Stick:
    """A step from one place to another."""
    dx, dy = goal[0] - place[0], goal[1] - place[1]
    return Stick((dx >= 1) - (dx <= -1), (dy >= 2) - (dy <= -2))


def unwanted(rink: Rink, plan: Plan, frame: int) -> int | None:
    """The skater nearest to the puck of those who must not take it now."""
    if isinstance(plan, Flight):
        allowed = set(SKATERS) if frame >= plan.late else {plan.taker}
    else:
        allowed = {plan.holder}
        if loses(plan, frame):
            allowed.add(rink.selected(1 - side_of(plan.holder)))
    x, y = rink.puck
    away = [(max(abs(rink.skater(i)[0] + 3 - x), abs(rink.skater(i)[1] - y)), i) for i in SKATERS if i not in allowed]
    return min(away)[1] if away else None


def loses(carry: Carry, frame: int) -> bool:
    """Whether the other side may now take the puck off the stick."""
    return carry.end == "lose" and frame >= carry.until


def _in_flight(rink: Rink, flight: Flight, skater: int, frame: int) -> Point:
    x, y = rink.puck
    if frame >= flight.late:
        return x - CATCH[0], y - CATCH[1]
    if skater == flight.taker:
        return flight.aim[0] - CATCH[0], flight.aim[1] - CATCH[1]
    if flight.taker is None and skater in BACKS:
        return flight.aim[0] - CATCH[0], rink.skater(skater)[1]
    return rink.skater(skater)


def _carries(rink: Rink, carry: Carry, frame: int) -> Stick:
    if frame < carry.still_until:
        return REST
    if frame < carry.until:
        return towards(rink.skater(carry.holder), carry.way)
    if carry.end != "lose":
        return _to_wing(rink, carry)
    return towards(rink.skater(carry.holder), (rink.skater(rink.selected(1 - side_of(carry.holder)))[0], carry.way[1]))


def _to_wing(rink: Rink, carry: Carry) -> Stick:
    """Towards the place from which the puck, on whichever side it is, lies in the third of the shot."""
    low, high = CORES[carry.wing]
    x, y = rink.skater(carry.holder)
    near, far = SWAY[rink.faces_left(carry.holder)]
    step = towards((x + (near + far) / 2, y), ((low + high) / 2, carry.way[1]))
    return step if not low <= rink.puck[0] <= high else REST


def _against(rink: Rink, carry: Carry, skater: int, frame: int) -> Point:
    """Takes the puck away, or keeps his goal, or shadows the one who has it."""
    (x, y), (own_x, own_y) = rink.skater(carry.holder), rink.skater(skater)
    if loses(carry, frame):
        return rink.puck[0] - CATCH[0], rink.puck[1] - CATCH[1]
    if abs(own_x - x) < KEEP_OFF[0] and abs(own_y - y) < KEEP_OFF[1]:
        return own_x + (40 if own_x > x or x < 61 else -40), uphill(skater, HOME) if skater in BACKS else own_y
    if skater in BACKS:
        return max(GOAL_LEFT, min(GOAL_RIGHT - 8, rink.puck[0])) - CATCH[0], uphill(skater, HOME)
    side = 1 if own_x > x else -1
    return x + side * (KEEP_OFF[0] + 8), uphill(skater, 228 - BACK_ROWS[1] + 24)
