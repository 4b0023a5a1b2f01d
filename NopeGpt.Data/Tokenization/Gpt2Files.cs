using System.Text.Json;

namespace NopeGpt.Data.Tokenization;

/// <summary>GPT-2's own two files: encoder.json with the id of every token, and vocab.bpe with a line for every merge; the same as vocab.json and
/// merges.txt. Both are written in the byte-level alphabet.</summary>
internal static class Gpt2Files
{
    private const string Cure = "take the two files of one model";

    private static readonly (string Vocabulary, string Merges)[] _names = [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")];

    /// <summary>Both files where the folder has them.</summary>
    public static (string Vocabulary, string Merges)? In(string folder)
    {
        foreach ((string vocabulary, string merges) in _names)
            if (File.Exists(Path.Combine(folder, vocabulary)) && File.Exists(Path.Combine(folder, merges))) return (Path.Combine(folder, vocabulary), Path.Combine(folder, merges));
        return null;
    }

    /// <summary>Both files where the one given is one of them by its name.</summary>
    /// <exception cref="InvalidDataException">The other one is not beside it.</exception>
    public static (string Vocabulary, string Merges)? With(string file)
    {
        string name = Path.GetFileName(file);
        foreach ((string vocabulary, string merges) in _names)
        {
            if (name != vocabulary && name != merges) continue;
            string other = Path.Combine(Path.GetDirectoryName(file) ?? "", name == vocabulary ? merges : vocabulary);
            if (!File.Exists(other)) throw new InvalidDataException($"The tokenizer {file} is one of two files, and {other} is missing; put it there.");
            return name == vocabulary ? (file, other) : (other, file);
        }
        return null;
    }

    /// <exception cref="InvalidDataException">A file is damaged, or the two are not of one tokenizer; one sentence with file, place, reason and cure.</exception>
    public static Vocabulary Read(string vocabularyFile, string mergesFile)
    {
        try
        {
            Dictionary<string, int> ids = Ids(File.ReadAllBytes(vocabularyFile), vocabularyFile);
            byte[][] tokens = new byte[ids.Count][];
            foreach ((string text, int id) in ids)
            {
                if ((uint)id >= (uint)tokens.Length || tokens[id] is not null) throw Wrong(vocabularyFile, $"the ids of its {tokens.Length} tokens are not 0 to {tokens.Length - 1}, each once ('{text}' has {id})");
                tokens[id] = ByteAlphabet.ToBytes(text) ?? throw Wrong(vocabularyFile, $"the token '{text}' is not written in the byte-level alphabet");
            }
            if (!ids.TryGetValue(Tokenizer.EndOfText, out int endOfText)) throw Wrong(vocabularyFile, $"it has no token {Tokenizer.EndOfText}");
            int[] byteIds = new int[256];
            for (int value = 0; value < byteIds.Length; value++)
                if (!ids.TryGetValue(ByteAlphabet.ToText([(byte)value]), out byteIds[value])) throw Wrong(vocabularyFile, $"the byte {value} is missing");
            return new Vocabulary(tokens, new Dictionary<string, int> { [Tokenizer.EndOfText] = endOfText }, Merges(mergesFile, ids))
            {
                Rules = new TextRules { Pattern = WordPattern.Gpt2 },
                EndOfTextId = endOfText,
                ByteIds = byteIds,
            };
        }
        catch (JsonException e) { throw Wrong(vocabularyFile, $"it is not whole JSON (line {e.LineNumber + 1})"); }
    }

    private static Dictionary<string, int> Ids(byte[] content, string file)
    {
        using JsonDocument document = JsonDocument.Parse(content);
        if (document.RootElement.ValueKind != JsonValueKind.Object) throw Wrong(file, "it is not an object of tokens with their ids");
        Dictionary<string, int> ids = [];
        foreach (JsonProperty token in document.RootElement.EnumerateObject())
        {
            string text;
            try { text = token.Name; }
            catch (InvalidOperationException) { throw Wrong(file, $"the token {ids.Count} is not valid Unicode"); }
            if (token.Value.ValueKind != JsonValueKind.Number || !token.Value.TryGetInt32(out int id)) throw Wrong(file, $"the id of the token '{text}' is not a whole number");
            if (!ids.TryAdd(text, id)) throw Wrong(file, $"the token '{text}' stands twice");
        }
        return ids;
    }

    /// <summary>A first line that begins with #version, then the two tokens of a merge a line.</summary>
    private static List<Merge> Merges(string file, Dictionary<string, int> ids)
    {
        List<Merge> merges = [];
        HashSet<(int, int)> seen = [];
        int number = 0;
        foreach (string line in File.ReadLines(file))
        {
            number++;
            if (line.Length == 0 || (number == 1 && line.StartsWith("#version", StringComparison.Ordinal))) continue;
            string[] parts = line.Split(' ');
            if (parts.Length != 2 || !ids.TryGetValue(parts[0], out int left) || !ids.TryGetValue(parts[1], out int right) || !ids.TryGetValue(parts[0] + parts[1], out int result))
                throw Wrong(file, $"line {number} ('{line[..Math.Min(line.Length, 80)]}') is not of two tokens that make a third of the vocabulary");
            if (!seen.Add((left, right))) throw Wrong(file, $"line {number} ('{line}') stands twice");
            merges.Add(new(left, right, result));
        }
        // A file that was cut between two lines is short of merges: then some tokens are made by none.
        HashSet<int> made = [.. merges.Select(merge => merge.Result)];
        foreach ((string text, int id) in ids)
            if (text.Length > 1 && text != Tokenizer.EndOfText && !made.Contains(id)) throw Wrong(file, $"no merge makes the token '{text}', so that some are missing");
        return merges;
    }

    private static InvalidDataException Wrong(string file, string reason) => new($"The tokenizer {file} cannot be used: {reason}; {Cure}.");
}
