#!/usr/bin/env python3
"""Renders an OpenAPI document as one HTML page without outside resources: openapi_html.py IN.yaml OUT.html"""

import html
import json
import re
import sys

import yaml

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem}
h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}
code,pre{font:14px/1.4 ui-monospace,monospace}
pre{background:var(--soft);padding:.6rem;overflow:auto;border-radius:6px}
b.m{display:inline-block;min-width:4.5rem}
table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid var(--line);padding:.25rem .6rem .25rem 0;text-align:left;vertical-align:top}
"""


def text(value):
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(str(value)))


class Page:
    def __init__(self, document):
        self.document = document

    def resolve(self, node):
        while isinstance(node, dict) and "$ref" in node:
            target = self.document
            for key in node["$ref"].removeprefix("#/").split("/"):
                target = target[key]
            node = target
        return node

    def type_of(self, schema):
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            return f'<a href="#schema-{name}">{text(name)}</a>'
        if schema.get("type") == "array":
            return "array of " + self.type_of(schema.get("items", {}))
        parts = [str(schema.get("type", "any"))]
        if "enum" in schema:
            parts.append(": " + ", ".join(map(str, schema["enum"])))
        if "minimum" in schema:
            parts.append(f" {schema['minimum']}..{schema['maximum']}")
        if "maxLength" in schema:
            parts.append(f", at most {schema['maxLength']} characters")
        if "default" in schema:
            parts.append(f", default {json.dumps(schema['default'])}")
        return text("".join(parts))

    def fields(self, schema):
        schema = self.resolve(schema)
        rows = []
        for name, field in schema.get("properties", {}).items():
            needed = " (required)" if name in schema.get("required", []) else ""
            rows.append(
                f"<tr><td><code>{text(name)}</code>{needed}</td><td>{self.type_of(field)}</td>"
                f"<td>{text(field.get('description', ''))}</td></tr>"
            )
            if field.get("type") == "object" and "properties" in field:
                rows.append(f'<tr><td></td><td colspan="2">{self.fields(field)}</td></tr>')
        if not rows:
            return f"<p>{self.type_of(schema)}</p>"
        return "<table>" + "".join(rows) + "</table>"

    def body(self, content):
        out = []
        for media, value in content.items():
            schema = value.get("schema", {})
            out.append(f"<p><code>{text(media)}</code> {self.type_of(schema) if '$ref' in schema else ''}</p>")
            resolved = self.resolve(schema)
            if "description" in resolved:
                out.append(f"<p>{text(resolved['description'])}</p>")
            if "$ref" not in schema and "properties" in resolved:
                out.append(self.fields(resolved))
        return "".join(out)

    def operation(self, path, method, operation, shared):
        out = [
            f'<details id="{text(operation["operationId"])}"><summary><b class="m">{method.upper()}</b>'
            f'<code>{text(path)}</code> {text(operation["summary"])}</summary>',
            f"<p>{text(operation.get('description', ''))}</p>",
        ]
        parameters = [self.resolve(each) for each in shared + operation.get("parameters", [])]
        if parameters:
            rows = "".join(
                f"<tr><td><code>{text(each['name'])}</code> in {each['in']}</td>"
                f"<td>{self.type_of(each['schema'])}</td><td>{text(each.get('description', ''))}</td></tr>"
                for each in parameters
            )
            out.append(f"<h4>Parameters</h4><table>{rows}</table>")
        if "requestBody" in operation:
            out.append("<h4>Body</h4>" + self.body(self.resolve(operation["requestBody"])["content"]))
        out.append("<h4>Answers</h4><table>")
        for status, answer in operation["responses"].items():
            answer = self.resolve(answer)
            content = self.body(answer["content"]) if "content" in answer and status < "400" else ""
            out.append(f"<tr><td><code>{status}</code></td><td>{text(answer['description'])}{content}</td></tr>")
        return "".join(out) + "</table></details>"

    def render(self):
        info = self.document["info"]
        out = [
            "<!doctype html><html lang=en><meta charset=utf-8>"
            '<meta name=viewport content="width=device-width,initial-scale=1">',
            f"<title>{text(info['title'])}</title><style>{STYLE}</style>",
            f"<h1>{text(info['title'])} <small>{text(info['version'])}</small></h1><p>{text(info['description'])}</p>",
            '<p>The same as <a href="/openapi.yaml">OpenAPI</a>.</p>',
        ]
        for name, scheme in self.document["components"]["securitySchemes"].items():
            out.append(f"<p>Authentication <code>{text(scheme['name'])}</code>: {text(scheme['description'])}</p>")
        for tag in self.document["tags"]:
            out.append(f"<h2>{text(tag['name'])}</h2><p>{text(tag['description'])}</p>")
            for path, item in self.document["paths"].items():
                for method in ("get", "post", "put", "patch", "delete"):
                    if method in item and tag["name"] in item[method]["tags"]:
                        out.append(self.operation(path, method, item[method], item.get("parameters", [])))
        out.append("<h2>Objects</h2>")
        for name, schema in self.document["components"]["schemas"].items():
            out.append(f'<h3 id="schema-{name}">{text(name)}</h3>{self.fields(schema)}')
        return "\n".join(out) + "\n</html>\n"


def main():
    with open(sys.argv[1], encoding="utf-8") as source:
        document = yaml.safe_load(source)
    with open(sys.argv[2], "w", encoding="utf-8") as target:
        target.write(Page(document).render())


if __name__ == "__main__":
    main()
