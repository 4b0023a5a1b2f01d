using System.Text;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Tokenizers;
using NopeGpt.Model;

namespace NopeGpt.Jobs;

public static partial class RunConfigChecks
{
    private const int LongestSpecial = 64;
    private const int MostSpecials = 1000;

    private const string NameCure = "use letters, digits, dots, hyphens and underscores, at most 64, beginning with a letter or digit";

    private static void TokenizerTraining(TokenizerConfig tokenizer, List<Problem> problems)
    {
        if (TokenizerNameProblem(tokenizer.Name) is { } reason) problems.Add(new Problem("tokenizer.name", Short(tokenizer.Name), reason));
        if (tokenizer.Source.Length == 0) problems.Add(new Problem("tokenizer.source", "", $"use {PrepareConfig.Stories}, {OpenedSource.Forms}"));
        SpecialTokensAreSound(tokenizer.SpecialTokens, problems);
        int smallest = 256 + tokenizer.SpecialTokens.Count;
        if (tokenizer.VocabularySize is > 256 && tokenizer.VocabularySize < smallest)
            problems.Add(new Problem("tokenizer.vocabulary_size", Text(tokenizer.VocabularySize), $"is too small: 256 bytes and {tokenizer.SpecialTokens.Count} special tokens need at least {smallest}"));
    }

    private static void SpecialTokensAreSound(IReadOnlyList<string> specials, List<Problem> problems)
    {
        const string Field = "tokenizer.special_tokens";
        if (specials.Count > MostSpecials) problems.Add(new Problem(Field, $"{specials.Count} tokens", $"use at most {MostSpecials}"));
        if (!specials.Contains(Tokenizer.EndOfText)) problems.Add(new Problem(Field, Short(string.Join(' ', specials)), $"must include {Tokenizer.EndOfText}, which ends a document"));
        foreach (string twice in specials.GroupBy(s => s, StringComparer.Ordinal).Where(g => g.Count() > 1).Select(g => g.Key)) problems.Add(new Problem(Field, Short(twice), "is there more than once: give it once"));
        foreach (string special in specials.Distinct(StringComparer.Ordinal))
        {
            string? reason = special.Length == 0 ? "is empty: leave it out"
                : special.Length > LongestSpecial ? $"is longer than {LongestSpecial} characters: make it shorter"
                : special.Any(char.IsControl) || HasHalves(special) ? "has control characters or halves of characters: leave them out"
                : Spelled(special);
            if (reason is not null) problems.Add(new Problem(Field, Short(special), reason));
        }
    }

    // The runes of a text show its halves of characters as U+FFFD.
    private static bool HasHalves(string text) => text.EnumerateRunes().Count(rune => rune == Rune.ReplacementChar) > text.Count(c => c == '\uFFFD');

    /// <summary>Why ordinary text could become this special token; null where it cannot.</summary>
    private static string? Spelled(string special) =>
        special != Tokenizer.EndOfText && new BytePairOptions { VocabularySize = int.MaxValue, SpecialTokens = [Tokenizer.EndOfText, special] }.Problems().Any()
            ? $"could also be spelled by ordinary text: put marks around it, as in <|{special.Trim()}|>" : null;

    /// <summary>Why a tokenizer of the store cannot have this name; null where it can.</summary>
    internal static string? TokenizerNameProblem(string name) =>
        !Store.IsName(name) ? $"cannot be a name: {NameCure}"
        : PublishedFile.Named(name) is not null ? "is the name of a published encoding: choose another"
        : null;

    private static void TokenizerCanBeMade(TokenizerConfig tokenizer, Store store, List<Problem> problems)
    {
        if (problems.All(p => p.Field != "tokenizer.name") && Directory.Exists(store.TokenizerFolder(tokenizer.Name)) && !new TokenizerLibrary(store).IsMadeBy(tokenizer))
            problems.Add(new Problem("tokenizer.name", tokenizer.Name, $"is taken ({store.TokenizerFolder(tokenizer.Name)}): choose another name, or delete that tokenizer"));
        SourceIsThere("tokenizer.source", tokenizer.Source, problems);
    }
}
