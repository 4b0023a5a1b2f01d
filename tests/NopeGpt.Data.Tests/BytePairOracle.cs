using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data.Tests;

/// <summary>Byte-pair encoding in the slowest and plainest way, to check the fast one against.</summary>
internal static class BytePairOracle
{
    /// <summary>Merges the pair of lowest rank, leftmost first, until there is none.</summary>
    public static List<int> Encode(Vocabulary vocabulary, string text, string? pattern = null)
    {
        Dictionary<(int, int), (int Rank, int Id)> merges = [];
        Dictionary<string, int> ids = [];
        for (int id = 0; id < vocabulary.Tokens.Length; id++)
            if (!vocabulary.SpecialTokens.Values.Contains(id)) ids.Add(Convert.ToHexString(vocabulary.Tokens[id]), id);
        foreach ((int left, int right, _) in vocabulary.Merges)
            merges.Add((left, right), (merges.Count, ids[Convert.ToHexString([.. vocabulary.Tokens[left], .. vocabulary.Tokens[right]])]));
        List<int> all = [];
        foreach (string word in Split(text, pattern))
        {
            List<int> symbols = [.. Encoding.UTF8.GetBytes(word).Select(value => ids[Convert.ToHexString([value])])];
            while (true)
            {
                (int Rank, int Id, int At) best = (int.MaxValue, 0, 0);
                for (int i = 0; i + 1 < symbols.Count; i++)
                    if (merges.TryGetValue((symbols[i], symbols[i + 1]), out (int Rank, int Id) merge) && merge.Rank < best.Rank) best = (merge.Rank, merge.Id, i);
                if (best.Rank == int.MaxValue) break;
                symbols[best.At] = best.Id;
                symbols.RemoveAt(best.At + 1);
            }
            all.AddRange(symbols);
        }
        return all;
    }

    /// <summary>Trains by counting every pair anew for every merge.</summary>
    public static List<(int, int)> Train(IEnumerable<string> documents, int merges, int firstByte)
    {
        Dictionary<byte, int> idOfByte = ByteAlphabet.Order.Select((value, index) => (value, index)).ToDictionary(x => x.value, x => firstByte + x.index);
        List<List<int>> words = [.. documents.SelectMany(document => Split(document)).Select(word => Encoding.UTF8.GetBytes(word).Select(value => idOfByte[value]).ToList())];
        Dictionary<int, string> spelling = idOfByte.ToDictionary(x => x.Value, x => ((char)x.Key).ToString());
        List<(int, int)> made = [];
        while (made.Count < merges)
        {
            Dictionary<(int Left, int Right), int> counts = [];
            foreach (List<int> word in words)
                for (int i = 0; i + 1 < word.Count; i++) counts[(word[i], word[i + 1])] = counts.GetValueOrDefault((word[i], word[i + 1])) + 1;
            if (counts.Count == 0) break;
            (int left, int right) = counts.OrderByDescending(x => x.Value).ThenBy(x => x.Key.Left).ThenBy(x => x.Key.Right).First().Key;
            string text = spelling[left] + spelling[right];
            int id = spelling.FirstOrDefault(x => x.Value == text, new(spelling.Keys.Max() + 1, text)).Key;
            spelling[id] = text;
            made.Add((left, right));
            foreach (List<int> word in words)
                for (int i = 0; i + 1 < word.Count; i++)
                    if (word[i] == left && word[i + 1] == right)
                    {
                        word[i] = id;
                        word.RemoveAt(i + 1);
                    }
        }
        return made;
    }

    /// <summary>The pattern with .NET's regular expressions. They see UTF-16 units, so each code point above U+FFFF is
    /// first replaced by one of the same kind below it, and the cuts are carried over.</summary>
    public static List<string> Split(string text, string? pattern = null)
    {
        StringBuilder flat = new();
        List<int> starts = [];
        int position = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            starts.Add(position);
            flat.Append(rune.IsBmp ? (char)rune.Value : Flat(rune));
            position += rune.Utf16SequenceLength;
        }
        starts.Add(position);
        List<string> words = [];
        foreach (Match match in Regex.Matches(flat.ToString(), pattern ?? WordSplitter.Pattern)) words.Add(text[starts[match.Index]..starts[match.Index + match.Length]]);
        return words;
    }

    private static char Flat(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        UnicodeCategory.UppercaseLetter => 'A',
        UnicodeCategory.TitlecaseLetter => 'ǅ',
        UnicodeCategory.LowercaseLetter => 'a',
        UnicodeCategory.ModifierLetter => 'ʰ',
        UnicodeCategory.OtherLetter => 'א',
        UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark => '\u0301',
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => '1',
        _ => '#',
    };
}
