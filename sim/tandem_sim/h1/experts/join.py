"""Join: a brick in each hand, held by its outer end; the one is pressed onto the other in the air, a stud off it."""

from tandem_sim.bricks.grid import Seat
from tandem_sim.h1.experts.arms import BRISK, CALM, LEFT, RIGHT
from tandem_sim.h1.experts.base import Failed, Steps
from tandem_sim.h1.experts.bimanual import HANDS, MEET_UP, MEET_X, SIDES
from tandem_sim.h1.experts.grasps import Grasp
from tandem_sim.h1.experts.parting import Parting
from tandem_sim.h1.experts.seats import Putting
from tandem_sim.h1.experts.sight import Spot
from tandem_sim.h1.experts.skills import TRIES
from tandem_sim.h1.tasks.join import LIFTED, Join

OVER = 0.012  # m over its seat from where the upper brick comes down; higher, it meets the other hand's palm
PRESS_S = 2.0  # s after which a press is given up
ALIGNED = 0.002  # m from there: near enough, as it goes on aligning while it comes down
GENTLY = 0.012  # m/s of a press; a faster one at the outer ends tilts the bricks, and comes off again
OVERLAP = 3  # studs along the bricks: fewer hold less of the turning that a press at the outer ends causes
OFF_UPPER, OFF_LOWER = 0.018, 0.0285  # m from the middle of a brick to its hand: wrists and fingers stay apart


class JoinExpert(Parting):
    """Both hands take their bricks at the same time, bring them together, press, and hold the pair up."""

    def off(self, slot: int) -> float:
        upper, _ = self.task.layout.roles[:2]
        return OFF_UPPER if slot == upper else OFF_LOWER

    def plan(self) -> Steps:
        assert isinstance(self.task, Join)
        upper, lower = self.task.layout.roles[:2]
        name, under = self.sight.name(upper), self.sight.name(lower)
        if self.sight.attached(upper, lower) and not self.task.in_the_air:
            yield from self.hold_both(upper, lower)
            yield from self.pull(upper, lower)
        if not self.sight.attached(upper, lower):
            above, below = self.arms_of(upper, lower)
            taking = f"take the {name} with the {HANDS[above]} hand and the {under} with the {HANDS[below]} hand"
            yield from self.at_once(taking, self.fetch(below, lower), self.fetch(above, upper))
            yield from self.meet(above, upper, below, lower)
        if not self.held_up(upper, lower):
            yield from self.take_up(upper, lower)
        self.say(f"hold the {name} and the {under} up")

    def held_up(self, upper: int, lower: int) -> bool:
        """Whether a hand holds the pair high enough."""
        held = any(self.holder(slot) is not None for slot in (upper, lower))
        return held and self.sight.spot(lower).z - self.task.table > LIFTED + self.task.height

    def take_up(self, upper: int, lower: int) -> Steps:
        """Takes a pair up again that was dropped once it was joined."""
        free = -self.toward(lower, upper)
        arm = self.holder(lower)
        if arm is None:
            arm = self.nimbler(lower, free)
            yield from self.grasp(arm, lower, self.best_end(arm, lower, free).grasp)
        self.say(f"lift the {self.sight.name(upper)} and the {self.sight.name(lower)}")
        up = self.arms.target(arm).raised(2 * LIFTED)
        yield from self.straight(arm, lambda: up, BRISK, close=0.01)

    def arms_of(self, upper: int, lower: int) -> tuple[int, int]:
        """Which arm takes which: who holds one goes on, else each takes what lies on its side."""
        by_upper, by_lower = self.holder(upper), self.holder(lower)
        if by_upper is not None:
            return by_upper, 1 - by_upper
        if by_lower is not None:
            return 1 - by_lower, by_lower
        left = self.sight.spot(upper).y > self.sight.spot(lower).y
        return (LEFT, RIGHT) if left else (RIGHT, LEFT)

    def fetch(self, arm: int, slot: int) -> Steps:
        """Takes a brick by an end, unless the arm has it."""
        if not self.holds(arm, slot):
            yield from self.grasp(arm, slot, self.best_end(arm, slot).grasp)
            yield from self.lift(arm, slot)

    def meet(self, above: int, upper: int, below: int, lower: int) -> Steps:
        """Brings both bricks together and presses until they hold."""
        name, under = self.sight.name(upper), self.sight.name(lower)
        seat = self.seat(above, upper, below, lower)
        aside = SIDES[below] * (self.task.sizes[lower].ny - OVERLAP) * self.world.settings.pitch / 2
        yaws = [self.meeting_yaw(arm, self.held_end(arm, slot)) for arm, slot in ((above, upper), (below, lower))]
        rest = Spot(MEET_X, aside, self.task.table + MEET_UP, yaws[1])
        ready = Spot(MEET_X, -aside, rest.z + self.task.height + OVER, yaws[0])

        def over() -> Spot:
            there = self.sight.seat_spot(upper, lower, seat)
            return Spot(there.x, there.y, there.z + OVER, there.yaw)

        yield from self.at_once(
            f"bring the {name} over the {under}",
            self.carry(below, lower, lambda: rest, close=0.003),
            self.carry(above, upper, lambda: ready, close=0.004),
        )
        for _ in range(TRIES):
            self.say(f"align the {name} with the {under}")
            aligned = self.straight(above, lambda: self.held_at(above, upper, over()), close=ALIGNED)
            yield from self.steady(below, aligned)
            if not (self.sight.upright(upper) and self.sight.upright(lower)):
                break  # tilted in a hand, they never fit
            self.say(f"press the {name} onto the {under}")
            putting = Putting(Grasp(0.0, 0.0, 0.0), seat, 0.0)
            if (yield from self.steady(below, self.press(above, upper, lower, putting, GENTLY, PRESS_S))):
                yield from self.ease(above)
                return
        anew = f"put the {name} and the {under} down, to take them anew"
        yield from self.at_once(anew, self.lay_down(above, upper), self.lay_down(below, lower))
        raise Failed(f"the {name} did not go onto the {under}")

    def seat(self, above: int, upper: int, below: int, lower: int) -> Seat:
        """Where the upper brick goes: a stud off the lower one, away from the hand that holds that."""
        size, under = self.sight.size(upper), self.sight.size(lower)
        end = self.held_end(below, lower)
        turns = 0 if end * self.held_end(above, upper) < 0 else 2
        return Seat(0, OVERLAP - size.ny if end > 0 else under.ny - OVERLAP, turns)

    def ease(self, arm: int, seconds: float = 0.2) -> Steps:
        """Stops to press."""
        rest = self.arms.tcp(arm)
        for _ in range(self.steps(seconds)):
            self.arms.toward(arm, rest, CALM)
            yield
