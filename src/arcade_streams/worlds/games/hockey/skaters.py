"""What the two sides do with their joysticks while a plan is carried out."""

from __future__ import annotations

from .plans import CATCH, CORES, Carry, Flight, Plan, Point, uphill
from .rink import BACKS, GOAL_LEFT, GOAL_RIGHT, REST, SKATER_LEFT, SKATERS, Rink, Stick, side_of

KEEP_OFF = (20, 12)
"""Pixels sideways and up or down that a side without the puck keeps from the one who has it."""
HOME, SHADOW = 54, 146
"""The row of skates of blue's back when he keeps his goal, of blue's front when the other side's back has the puck."""
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
            allowed.add(rink.rival(plan.holder))
    x, y = rink.puck
    gaps = ((abs(place[0] + CATCH[0] - x), abs(place[1] - y)) for place in rink.skaters)
    near = [(max(gap), skater) for skater, gap in enumerate(gaps) if skater not in allowed]
    return min(near)[1] if near else None


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
    return towards(rink.skater(carry.holder), (rink.skater(rink.rival(carry.holder))[0], carry.way[1]))


def _to_wing(rink: Rink, carry: Carry) -> Stick:
    """Towards the place from which the puck, on whichever side it is, lies in the third of the shot."""
    low, high = CORES[carry.wing]
    x, y = rink.skater(carry.holder)
    near, far = SWAY[rink.faces_left(carry.holder)]
    step = towards((x + (near + far) / 2, y), ((low + high) / 2, carry.way[1]))
    return REST if low <= rink.puck[0] <= high else step


def _against(rink: Rink, carry: Carry, skater: int, frame: int) -> Point:
    """Takes the puck away, or keeps his goal, or shadows the one who has it."""
    (x, y), (own_x, own_y) = rink.skater(carry.holder), rink.skater(skater)
    if loses(carry, frame):
        return rink.puck[0] - CATCH[0], rink.puck[1] - CATCH[1]
    if abs(own_x - x) < KEEP_OFF[0] and abs(own_y - y) < KEEP_OFF[1]:
        away = own_x + (KEEP_OFF[0] if own_x > x or x < SKATER_LEFT + KEEP_OFF[0] else -KEEP_OFF[0])
        return away, uphill(skater, HOME) if skater in BACKS else own_y
    if skater in BACKS:
        return max(GOAL_LEFT, min(GOAL_RIGHT - 2 * CATCH[0], rink.puck[0])) - CATCH[0], uphill(skater, HOME)
    return x + (KEEP_OFF[0] + 8) * (1 if own_x > x else -1), uphill(skater, SHADOW)
