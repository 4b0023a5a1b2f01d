namespace NopeGpt.Data.Documents.Stories;

internal sealed record Pronouns(string He, string Him, string His)
{
    public static Pronouns Female { get; } = new("she", "her", "her");
    public static Pronouns Male { get; } = new("he", "him", "his");

    public string Himself { get; } = SelfOf(He);

    public static Pronouns Of(string he) => he == "she" ? Female : Male;

    private static string SelfOf(string he) => he == "she" ? "herself" : "himself";
}

/// <summary>A noun with one word before it: "kite", "red kite", "a red kite".</summary>
internal sealed record Thing(string Noun, string ANoun, string Full, string AFull)
{
    public Thing(string noun, string before) : this(noun, WithArticle(noun), $"{before} {noun}", WithArticle($"{before} {noun}")) { }

    /// <summary>The words of the lexicon are spoken as they are spelled but for these.</summary>
    public static string WithArticle(string words) =>
        ("aeiou".Contains(words[0], StringComparison.Ordinal) && !words.StartsWith("one-", StringComparison.Ordinal) && !words.StartsWith("uni", StringComparison.Ordinal) ? "an " : "a ") + words;
}

/// <summary>A place: "the windy hill", "on the windy hill".</summary>
internal sealed record Place(string Name, string In);

internal sealed record Trait(string Word, Template Shows, Template Changed);

/// <summary>One of the story's people (or animals): everything that is said about them comes from here.</summary>
internal readonly record struct Character(string Name, Pronouns Pronouns, string Kind, string Described, string Hand, string Hands);
