"""The types of a kernel's BTF as drgn's."""

from typing import Any

from ioflusher.lab.memory.btf import Btf, BtfKind, BtfMember

# drgn has no types of its own for static checkers to see where it is not installed
Program = Any
Type = Any

_QUALIFIERS = {BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT}


class BtfTypes:
    """Makes drgn's types from BTF, each once, and its members when they are first looked at."""

    def __init__(self, program: Program, btf: Btf) -> None:
        self._program = program
        self._btf = btf
        self._made: dict[int, Type] = {}

    def find(self, program: Program, kinds: Any, name: str, filename: str | None) -> Type | None:
        """A type finder of drgn's."""
        from drgn import TypeKind

        wanted = {
            TypeKind.INT: (BtfKind.INT,),
            TypeKind.BOOL: (BtfKind.INT,),
            TypeKind.FLOAT: (BtfKind.FLOAT,),
            TypeKind.STRUCT: (BtfKind.STRUCT,),
            TypeKind.UNION: (BtfKind.UNION,),
            TypeKind.ENUM: (BtfKind.ENUM, BtfKind.ENUM64),
            TypeKind.TYPEDEF: (BtfKind.TYPEDEF,),
        }
        for kind in kinds:
            for ours in wanted.get(kind, ()):
                number = self._btf.find(ours, name)
                if number is not None and (made := self.type(number)).kind in kinds:
                    return made
        return None

    def type(self, number: int) -> Type:
        """The type of this number."""
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> Type:
        from drgn import Qualifiers

        program, btf = self._program, self._btf
        type_ = btf.type(number)
        behind = type_.size_or_type
        match type_.kind:
            case BtfKind.INT:
                signed, boolean = btf.integer(type_)
                make = program.bool_type if boolean else program.int_type
                return make(type_.name, behind) if boolean else make(type_.name, behind, signed)
            case BtfKind.FLOAT:
                return program.float_type(type_.name, behind)
            case BtfKind.PTR:
                return program.pointer_type(self.type(behind))
            case BtfKind.ARRAY:
                element, length = btf.array(type_)
                return program.array_type(self.type(element), length)
            case BtfKind.STRUCT:
                return program.struct_type(type_.name or None, behind, self._members(number))
            case BtfKind.UNION:
                return program.union_type(type_.name or None, behind, self._members(number))
            case BtfKind.ENUM | BtfKind.ENUM64:
                return self._enum(number)
            case BtfKind.FWD:
                return program.union_type(type_.name) if type_.flag else program.struct_type(type_.name)
            case BtfKind.TYPEDEF:
                return program.typedef_type(type_.name, self.type(behind))
            case BtfKind.CONST:
                return self._qualified(behind, Qualifiers.CONST)
            case BtfKind.VOLATILE:
                return self._qualified(behind, Qualifiers.VOLATILE)
            case BtfKind.RESTRICT:
                return self._qualified(behind, Qualifiers.RESTRICT)
            case BtfKind.TYPE_TAG:
                return self.type(behind)
            case BtfKind.FUNC_PROTO:
                return self._function(number)
            case _:
                return program.void_type()

    def _qualified(self, number: int, qualifier: Any) -> Type:
        type_ = self.type(number)
        return type_.qualified(type_.qualifiers | qualifier)

    def _enum(self, number: int) -> Type:
        from drgn import TypeEnumerator

        type_ = self._btf.type(number)
        named = self._btf.enumerators(type_)
        signed = any(value < 0 for _, value in named)
        size = type_.size_or_type
        compatible = self._program.int_type(f"{'' if signed else 'unsigned '}int", size, signed)
        return self._program.enum_type(
            type_.name or None, compatible, [TypeEnumerator(name, value) for name, value in named]
        )

    def _function(self, number: int) -> Type:
        from drgn import TypeParameter

        type_ = self._btf.type(number)
        parameters = self._btf.parameters(type_)
        variadic = bool(parameters) and parameters[-1] == ("", 0)
        return self._program.function_type(
            self.type(type_.size_or_type),
            [
                TypeParameter(lambda number=number: self.type(number), name or None)
                for name, number in (parameters[:-1] if variadic else parameters)
            ],
            variadic,
        )

    def _members(self, number: int) -> list[Any]:
        from drgn import TypeMember

        return [
            TypeMember(lambda member=member: self._member(member), member.name or None, member.bit_offset)
            for member in self._btf.members(self._btf.type(number))
        ]

    def _member(self, member: BtfMember) -> Any:
        from drgn import Object

        type_ = self.type(member.type)
        if not member.bit_field_size:
            return type_
        return Object(self._program, type_, bit_field_size=member.bit_field_size)
