namespace NopeGpt.Data.Tokenization;

/// <summary>A change of the text before it is cut: every From becomes To; where From is null, To is put before the text.</summary>
/// <param name="Once">Not before a text that begins with it already.</param>
internal sealed record TextChange(string? From, string To, bool Once = false)
{
    public string Apply(string text) =>
        From is not null ? text.Replace(From, To, StringComparison.Ordinal)
        : Once && text.StartsWith(To, StringComparison.Ordinal) ? text
        : To + text;
}

/// <summary>How text becomes the symbols that merge, and how tokens become text again.</summary>
internal sealed record TextRules
{
    /// <summary>Those of the tokenizers trained here.</summary>
    public static TextRules Trained { get; } = new();

    /// <summary>Made in this order, to a text that is not empty.</summary>
    public IReadOnlyList<TextChange> Changes { get; init; } = [];

    public WordPattern Pattern { get; init; } = WordPattern.Trained;

    /// <summary>Words begin as characters, and as bytes only where the vocabulary has no such character. Otherwise they begin as bytes.</summary>
    public bool Characters { get; init; }

    /// <summary>A word that is a token as a whole becomes it, whatever the merges make of it.</summary>
    public bool WholeWords { get; init; }

    /// <summary>Neighbours merge whose bytes together are a token, and its id is its rank (OpenAI's way); there are no merges.</summary>
    public bool Ranked { get; init; }

    /// <summary>Texts that are cut out before all others and become their token; the longest where several begin at one place.</summary>
    public IReadOnlyDictionary<string, int> FixedWords { get; init; } = new Dictionary<string, int>();

    /// <summary>One space at the beginning of a text was put there by encoding, and decoding takes it away.</summary>
    public bool StripsSpace { get; init; }

    /// <summary>All of it as one line, for the tokenizer's hash.</summary>
    public string Spelled() =>
        string.Join('\u001f', [
            $"{Pattern} {Characters} {WholeWords} {StripsSpace}{(Ranked ? " ranked" : "")}",
            .. Changes.Select(change => $"{change.From}\u001e{change.To}\u001e{change.Once}"),
            .. FixedWords.OrderBy(word => word.Value).Select(word => $"{word.Value}\u001e{word.Key}"),
        ]);
}
