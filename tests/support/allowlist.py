"""A contract for import-linter: some packages may import only the listed modules of another one.

import-linter's own contracts list what is forbidden, so that a new module is allowed until someone forbids it.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class Allowlist(Contract):
    """`source_packages` and their modules import only `allowed_modules` of `package`, not the modules below those."""

    source_packages = fields.ListField(subfield=fields.StringField())
    package = fields.StringField()
    allowed_modules = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Check direct imports only: what an allowed module imports does not matter."""
        package = graph.find_descendants(self.package) | {self.package}
        found = [f"{name} is allowed, but does not exist" for name in sorted(self.allowed_modules - package)]
        for source in self.source_packages:
            own = {source, *graph.find_descendants(source)}
            for importer in sorted(own):
                imported = graph.find_modules_directly_imported_by(importer) & (package - self.allowed_modules - own)
                found += [
                    f"{importer} imports {name} (line {_line(graph, importer, name)})" for name in sorted(imported)
                ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print what is allowed, and one line for each import that is not."""
        output.print_error(f"Allowed of {self.package}: {', '.join(sorted(self.allowed_modules))}", bold=False)
        for line in check.metadata["found"]:
            output.print_error(f"- {line}", bold=False)


def _line(graph: ImportGraph, importer: str, imported: str) -> str:
    return ", ".join(
        str(found["line_number"]) for found in graph.get_import_details(importer=importer, imported=imported)
    )
