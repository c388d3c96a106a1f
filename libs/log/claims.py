"""Membership of groups inside one process: numbers 0..N-1 shared among members."""

from collections.abc import Callable

from libs.log.contract import Owner


class MemberClaim:
    """A Claim of one member; ended by the Groups that gave it."""

    def __init__(self, group: str, partition: int) -> None:
        self.group, self.partition = group, partition
        self._held = True

    def held(self) -> bool:
        return self._held

    def end(self) -> None:
        self._held = False


class Member:
    """One member of a group and what it owns: number -> claim."""

    def __init__(self, group: str, owner: Owner) -> None:
        self.group, self.owner = group, owner
        self.claims: dict[int, MemberClaim] = {}


class Groups:
    """All groups of this process. Every change of a claim happens inside `join` and `leave`.

    A number moves only when its owner leaves or holds more than its share; a kept number keeps its claim.
    `failed` is told of an exception that an Owner raised: the others are told of their claims all the same.
    """

    def __init__(self, partitions: int, failed: Callable[[Exception], None]) -> None:
        self._partitions, self._failed = partitions, failed
        self._members: dict[str, list[Member]] = {}

    def join(self, group: str, owner: Owner) -> Member:
        member = Member(group, owner)
        self._members.setdefault(group, []).append(member)
        self._share(group)
        return member

    def leave(self, member: Member) -> None:
        """Every claim of `member` ends, it is told, then the others gain."""
        self._members[member.group].remove(member)
        self._end(member, sorted(member.claims))
        self._share(member.group)

    def _share(self, group: str) -> None:
        members = self._members[group]
        if not members:
            del self._members[group]
            return
        each, over = divmod(self._partitions, len(members))
        shares = [each + (place < over) for place in range(len(members))]
        for member, share in zip(members, shares, strict=True):
            self._end(member, sorted(member.claims)[share:])
        owned = {number for member in members for number in member.claims}
        free = iter([number for number in range(self._partitions) if number not in owned])
        for member, share in zip(members, shares, strict=True):
            while len(member.claims) < share:
                number = next(free)
                claim = member.claims[number] = MemberClaim(group, number)
                self._tell(member.owner.gained, claim)

    def _end(self, member: Member, numbers: list[int]) -> None:
        ended = [member.claims.pop(number) for number in numbers]
        for claim in ended:
            claim.end()
        for claim in ended:
            self._tell(member.owner.lost, claim)

    def _tell(self, callback: Callable[[MemberClaim], None], claim: MemberClaim) -> None:
        try:
            callback(claim)
        except Exception as error:  # the owner's bug: reported, and nobody else's claims depend on it
            self._failed(error)
