using System.Text;
using System.Text.Json;

namespace NopeGpt.Data.Documents;

/// <summary>Documents from files of the user's.</summary>
public static class TextFiles
{
    /// <summary>The line that separates documents in a .txt file.</summary>
    public const string Separator = "<|endoftext|>";

    /// <summary>Streams the documents of a .txt file (split at lines that are exactly &lt;|endoftext|&gt;; a file without one is one document)
    /// or of a .jsonl file (one {"text": ...} a line; empty lines are skipped). Line ends become \n; empty documents are left out.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="ArgumentException">The file ends in something else.</exception>
    /// <exception cref="InvalidDataException">A line is not a JSON object with a string "text"; the message names file and line.</exception>
    public static IEnumerable<string> Documents(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (!File.Exists(path)) throw new FileNotFoundException($"The text file {path} does not exist; give the path of a .txt or .jsonl file.", path);
        return Path.GetExtension(path).ToUpperInvariant() switch
        {
            ".TXT" => TextDocuments(path),
            ".JSONL" => JsonDocuments(path),
            _ => throw new ArgumentException($"The text file {path} must end in .txt or .jsonl.", nameof(path)),
        };
    }

    private static IEnumerable<string> TextDocuments(string path)
    {
        StringBuilder document = new();
        foreach (string line in File.ReadLines(path))
        {
            if (line != Separator)
            {
                document.Append(line).Append('\n');
                continue;
            }
            if (Take(document) is { } text) yield return text;
        }
        if (Take(document) is { } last) yield return last;
    }

    /// <summary>The document without the line end that belongs to the separator or the file's end; null when nothing is left.</summary>
    private static string? Take(StringBuilder document)
    {
        int length = document.Length;
        if (length > 0) length--;
        string text = document.ToString(0, length);
        document.Clear();
        return text.Length == 0 ? null : text;
    }

    private static IEnumerable<string> JsonDocuments(string path)
    {
        long number = 0;
        foreach (string line in File.ReadLines(path))
        {
            number++;
            if (string.IsNullOrWhiteSpace(line)) continue;
            string text = TextOf(line, path, number);
            if (text.Length > 0) yield return text;
        }
    }

    private static string TextOf(string line, string path, long number)
    {
        try
        {
            using JsonDocument json = JsonDocument.Parse(line);
            if (json.RootElement.ValueKind == JsonValueKind.Object && json.RootElement.TryGetProperty("text", out JsonElement text) && text.ValueKind == JsonValueKind.String)
                return text.GetString()!;
        }
        catch (JsonException error)
        {
            throw new InvalidDataException($"{path}, line {number}: this is not JSON ({error.Message.Split('.')[0]}); each line must be an object like {{\"text\": \"...\"}}.", error);
        }
        catch (InvalidOperationException error)
        {
            // A string with half a surrogate pair, such as "\ud800", is JSON but no text.
            throw new InvalidDataException($"{path}, line {number}: \"text\" is not valid Unicode; repair or remove the line.", error);
        }
        throw new InvalidDataException($"{path}, line {number}: there is no string \"text\"; each line must be an object like {{\"text\": \"...\"}}.");
    }
}
