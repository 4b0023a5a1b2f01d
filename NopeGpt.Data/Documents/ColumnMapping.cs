namespace NopeGpt.Data.Documents;

/// <summary>What a data set is for.</summary>
public enum DatasetKind
{
    /// <summary>Plain documents to pretrain on.</summary>
    Text,

    /// <summary>Conversations or instructions with their answers.</summary>
    Chat,

    /// <summary>Pairs of a better and a worse answer.</summary>
    Preference,
}

/// <summary>Which column of a source plays which part; null where none does.</summary>
public sealed record ColumnMapping
{
    /// <summary>Column names that public data sets use, by part, the best known first. Case does not count.</summary>
    private static readonly (string Part, string[] Names)[] _known =
    [
        (nameof(Text), ["text", "content", "document", "raw_content", "article", "story", "passage", "body"]),
        (nameof(Messages), ["messages", "conversations", "conversation", "dialog", "dialogue", "chat"]),
        (nameof(System), ["system", "system_prompt"]),
        (nameof(Prompt), ["prompt", "instruction", "question", "query"]),
        (nameof(Input), ["input", "context"]),
        (nameof(Completion), ["completion", "output", "response", "answer"]),
        (nameof(Chosen), ["chosen"]),
        (nameof(Rejected), ["rejected"]),
    ];

    /// <summary>The document of a text data set.</summary>
    public string? Text { get; init; }

    /// <summary>A list of {role, content} or ShareGPT's {from, value}.</summary>
    public string? Messages { get; init; }

    /// <summary>A system message for the conversation.</summary>
    public string? System { get; init; }

    /// <summary>The question or instruction.</summary>
    public string? Prompt { get; init; }

    /// <summary>What Alpaca's instruction is applied to; may be empty.</summary>
    public string? Input { get; init; }

    /// <summary>The answer to the prompt.</summary>
    public string? Completion { get; init; }

    /// <summary>The better answer: a text, a message or a whole conversation.</summary>
    public string? Chosen { get; init; }

    /// <summary>The worse answer, in the form of the better one.</summary>
    public string? Rejected { get; init; }

    /// <summary>The columns to read, each once.</summary>
    public IReadOnlyList<string> Columns => [.. new[] { Text, Messages, System, Prompt, Input, Completion, Chosen, Rejected }.OfType<string>().Distinct()];

    public DatasetKind Kind => Chosen is not null ? DatasetKind.Preference : Text is not null ? DatasetKind.Text : DatasetKind.Chat;

    /// <summary>The mapping for columns with well-known names. Without a kind, preference pairs are taken before conversations and those before text.</summary>
    /// <exception cref="InvalidDataException">No well-known column is there; the message lists those that are.</exception>
    public static ColumnMapping Guess(IReadOnlyList<string> columns, DatasetKind? kind = null, string source = "the source")
    {
        ArgumentNullException.ThrowIfNull(columns);
        string? Find(string part) => _known.First(k => k.Part == part).Names
            .Select(name => columns.FirstOrDefault(c => string.Equals(c, name, StringComparison.OrdinalIgnoreCase))).FirstOrDefault(c => c is not null);
        string? text = Find(nameof(Text)), messages = Find(nameof(Messages)), system = Find(nameof(System)), prompt = Find(nameof(Prompt));
        string? input = Find(nameof(Input)), completion = Find(nameof(Completion)), chosen = Find(nameof(Chosen)), rejected = Find(nameof(Rejected));
        if (kind is null or DatasetKind.Preference && chosen is not null && rejected is not null)
            return new() { System = system, Prompt = prompt, Input = prompt is null ? null : input, Messages = prompt is null ? messages : null, Chosen = chosen, Rejected = rejected };
        if (kind is null or DatasetKind.Chat && messages is not null) return new() { Messages = messages, System = system };
        if (kind is null or DatasetKind.Chat && prompt is not null && completion is not null)
            return new() { System = system, Prompt = prompt, Input = input, Completion = completion };
        if (kind is null or DatasetKind.Text && text is not null) return new() { Text = text };
        if (kind is null or DatasetKind.Text && columns.Count == 1) return new() { Text = columns[0] };
        throw new InvalidDataException($"{source} has the columns {List(columns)}; none of them is known to hold {Wanted(kind)}. Name the columns yourself, for example {Example(kind, columns)}.");
    }

    /// <summary>Reads "part=column" pairs joined by commas; the parts are text, messages, system, prompt, input, completion, chosen and rejected.</summary>
    /// <exception cref="FormatException">A pair is not of that form, names an unknown part or one twice; or the parts make no mapping.</exception>
    public static ColumnMapping Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        ColumnMapping mapping = new();
        HashSet<string> seen = [];
        foreach (string pair in text.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = pair.IndexOf('=', StringComparison.Ordinal);
            string part = equals > 0 ? pair[..equals].Trim() : "", column = pair[(equals + 1)..].Trim();
            if (part.Length == 0 || column.Length == 0) throw new FormatException($"The column mapping \"{pair}\" is not of the form part=column, such as text=content.");
            if (!seen.Add(part)) throw new FormatException($"The column mapping names {part} twice; leave one out.");
            mapping = part switch
            {
                "text" => mapping with { Text = column },
                "messages" => mapping with { Messages = column },
                "system" => mapping with { System = column },
                "prompt" => mapping with { Prompt = column },
                "input" => mapping with { Input = column },
                "completion" => mapping with { Completion = column },
                "chosen" => mapping with { Chosen = column },
                "rejected" => mapping with { Rejected = column },
                _ => throw new FormatException($"The column mapping has no part \"{part}\"; the parts are text, messages, system, prompt, input, completion, chosen and rejected."),
            };
        }
        return mapping.Problem() is { } problem ? throw new FormatException($"The column mapping \"{text}\" {problem}.") : mapping;
    }

    /// <summary>Checks that a file has the columns.</summary>
    /// <exception cref="InvalidDataException">One is missing; the message lists those that are there.</exception>
    public void Check(IReadOnlyList<string> columns, string source)
    {
        ArgumentNullException.ThrowIfNull(columns);
        string[] missing = [.. Columns.Where(c => !columns.Contains(c))];
        if (missing.Length > 0)
            throw new InvalidDataException($"{source} has no column {List(missing)}; it has {List(columns)}. {(Nearest(missing, columns) is { } nearest ? $"Did you mean \"{nearest}\"?" : "Change the column mapping to one of these.")}");
    }

    /// <summary>Says that none of the wanted columns is there, and what to do.</summary>
    internal static string NoneOf(IReadOnlyList<string> wanted, IReadOnlyList<string> columns) =>
        $"there is no column {List(wanted)} but {List(columns)}; {(Nearest(wanted, columns) is { } nearest ? $"did you mean \"{nearest}\"?" : "change the column mapping to one of these")}";

    public override string ToString() => string.Join(",", new[] { ("text", Text), ("messages", Messages), ("system", System), ("prompt", Prompt), ("input", Input), ("completion", Completion), ("chosen", Chosen), ("rejected", Rejected) }
        .Where(p => p.Item2 is not null).Select(p => $"{p.Item1}={p.Item2}"));

    internal static string List(IEnumerable<string> columns)
    {
        string[] all = [.. columns];
        return all.Length == 0 ? "(none)" : string.Join(", ", all.Take(40).Select(c => $"\"{c}\"")) + (all.Length > 40 ? $" and {all.Length - 40} more" : "");
    }

    /// <summary>The column whose name differs least from a wanted one; null where none differs by less than half of its letters.</summary>
    private static string? Nearest(IEnumerable<string> wanted, IEnumerable<string> columns) =>
        wanted.SelectMany(want => columns.Select(column => (Column: column, Distance: Distance(want.ToLowerInvariant(), column.ToLowerInvariant()), Most: (want.Length - 1) / 2)))
            .Where(pair => pair.Distance <= pair.Most).OrderBy(pair => pair.Distance).Select(pair => pair.Column).FirstOrDefault();

    /// <summary>Letters to insert, leave out or change (Levenshtein).</summary>
    private static int Distance(string from, string to)
    {
        int[] row = [.. Enumerable.Range(0, to.Length + 1)];
        for (int i = 1; i <= from.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= to.Length; j++) (diagonal, row[j]) = (row[j], Math.Min(Math.Min(row[j], row[j - 1]) + 1, diagonal + (from[i - 1] == to[j - 1] ? 0 : 1)));
        }
        return row[^1];
    }

    private string? Problem() => (Chosen is null) != (Rejected is null) ? "needs both chosen and rejected, or neither"
        : Completion is not null && Prompt is null ? "has a completion without a prompt"
        : Text is null && Messages is null && Chosen is null && Completion is null ? "needs text, messages, prompt and completion, or chosen and rejected"
        : null;

    private static string Wanted(DatasetKind? kind) => kind switch
    {
        DatasetKind.Text => "text",
        DatasetKind.Chat => "conversations (messages, conversations, or a prompt with its completion)",
        DatasetKind.Preference => "preference pairs (chosen and rejected)",
        _ => "text, conversations or preference pairs",
    };

    private static string Example(DatasetKind? kind, IReadOnlyList<string> columns)
    {
        string column = columns.Count > 0 ? columns[0] : "COLUMN";
        return kind switch
        {
            DatasetKind.Chat => $"messages={column}",
            DatasetKind.Preference => "chosen=COLUMN,rejected=COLUMN",
            _ => $"text={column}",
        };
    }
}
