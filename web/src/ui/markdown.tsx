/** Markdown as elements: the text of a model never becomes markup, and a link leads to the web and nowhere else. */
import type { RootContent } from "mdast";
import { fromMarkdown } from "mdast-util-from-markdown";
import { gfmFromMarkdown } from "mdast-util-gfm";
import { gfm } from "micromark-extension-gfm";
import type { ComponentChildren, VNode } from "preact";

const SAFE_LINK = /^(https?:|mailto:)/i;

export function Markdown({ text }: { text: string }) {
  const tree = fromMarkdown(text, { extensions: [gfm()], mdastExtensions: [gfmFromMarkdown()] });
  return <div class="prose" dir="auto">{all(tree.children)}</div>;
}

function all(nodes: readonly RootContent[]): ComponentChildren {
  return nodes.map((node, place) => element(node, place));
}

function element(node: RootContent, key: number): VNode | string | null {
  switch (node.type) {
    case "text":
      return node.value;
    case "html": // shown, not obeyed
      return node.value;
    case "paragraph":
      return <p key={key}>{all(node.children)}</p>;
    case "heading": {
      // a heading of an answer stands below those of the page
      const Level = `h${Math.min(6, node.depth + 2)}` as "h3";
      return <Level key={key}>{all(node.children)}</Level>;
    }
    case "strong":
      return <strong key={key}>{all(node.children)}</strong>;
    case "emphasis":
      return <em key={key}>{all(node.children)}</em>;
    case "delete":
      return <del key={key}>{all(node.children)}</del>;
    case "inlineCode":
      return <code key={key}>{node.value}</code>;
    case "code":
      return (
        <pre key={key} tabIndex={0} dir="ltr">
          <code>{node.value}</code>
        </pre>
      );
    case "blockquote":
      return <blockquote key={key}>{all(node.children)}</blockquote>;
    case "list":
      return node.ordered ? (
        <ol key={key} start={node.start ?? 1}>{all(node.children)}</ol>
      ) : (
        <ul key={key}>{all(node.children)}</ul>
      );
    case "listItem":
      return <li key={key}>{all(node.children)}</li>;
    case "break":
      return <br key={key} />;
    case "thematicBreak":
      return <hr key={key} />;
    case "link":
      return SAFE_LINK.test(node.url) ? (
        <a key={key} href={node.url} target="_blank" rel="noopener noreferrer nofollow">{all(node.children)}</a>
      ) : (
        <span key={key}>{all(node.children)}</span>
      );
    case "image": // nothing is fetched from elsewhere
      return <span key={key}>{node.alt || node.url}</span>;
    case "table":
      return (
        <div key={key} class="wide" tabIndex={0}>
          <table>
            <tbody>
              {node.children.map((row, place) => (
                <tr key={place}>
                  {row.children.map((cell, column) =>
                    place === 0 ? <th key={column}>{all(cell.children)}</th> : <td key={column}>{all(cell.children)}</td>,
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      );
    case "linkReference":
      return <span key={key}>{all(node.children)}</span>;
    default:
      return null;
  }
}
