using System.Globalization;
using System.Text;
using NopeGpt.Data;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Jobs.Commands;

/// <summary>How a row is shown.</summary>
internal enum PreviewView
{
    /// <summary>Its text.</summary>
    Raw,

    /// <summary>Each token with its id.</summary>
    Tokens,

    /// <summary>Its text, with what the loss sees marked.</summary>
    Labels,
}

/// <summary>Writes rows of a preview for people. Control characters of the data never reach the terminal.</summary>
/// <param name="colours">Whether the output is a terminal that shows them; otherwise marks do.</param>
/// <param name="characters">Of a row at most; 0 for all.</param>
internal sealed class PreviewWriter(TextWriter output, bool colours, int characters)
{
    private const string Reset = "\e[0m", Dim = "\e[2m", Learned = "\e[32m", Bold = "\e[1m";

    public void Write(PreviewRow row, PreviewView view)
    {
        output.WriteLine(In(Bold, $"── {Line(row.Title)} ──"));
        switch (view)
        {
            case PreviewView.Tokens: WriteTokens(row.Tokens!); break;
            case PreviewView.Labels: WriteLabels(row.Tokens!); break;
            default: WriteText(row.Text); break;
        }
        output.WriteLine();
    }

    private void WriteText(string text)
    {
        int shown = characters == 0 || text.Length <= characters ? text.Length : characters;
        if (shown < text.Length && char.IsHighSurrogate(text[shown - 1])) shown--;
        output.Write(Safe(text[..shown]));
        output.WriteLine(shown < text.Length ? In(Dim, string.Create(CultureInfo.InvariantCulture, $" … {text.Length - shown} more characters")) : "");
    }

    private void WriteTokens(IReadOnlyList<TokenPreview> tokens)
    {
        int used = 0;
        for (int i = 0; i < tokens.Count && More(used, tokens.Count - i); i++)
        {
            TokenPreview token = tokens[i];
            Sequence(tokens, i);
            output.Write($"[{(token.Text.Length == 0 ? "…" : Line(token.Text.Replace(' ', '·')))} {In(Dim, token.Id.ToString(CultureInfo.InvariantCulture))}]");
            if (token.Text.Contains('\n', StringComparison.Ordinal)) output.WriteLine();
            used += token.Text.Length;
        }
        output.WriteLine();
        Count(tokens);
    }

    private void WriteLabels(IReadOnlyList<TokenPreview> tokens)
    {
        int used = 0;
        for (int i = 0; i < tokens.Count && More(used, tokens.Count - i);)
        {
            Sequence(tokens, i);
            bool learned = tokens[i].Label;
            StringBuilder run = new();
            do run.Append(tokens[i++].Text);
            while (i < tokens.Count && tokens[i].Label == learned && !StartsSequence(tokens, i) && (characters == 0 || used + run.Length < characters));
            used += run.Length;
            string text = Safe(run.ToString());
            output.Write(colours ? In(learned ? Learned : Dim, text) : learned ? $"«{text}»" : text);
        }
        output.WriteLine();
        Count(tokens);
    }

    private bool More(int used, int tokens)
    {
        if (characters == 0 || used < characters) return true;
        output.Write(In(Dim, string.Create(CultureInfo.InvariantCulture, $" … {tokens} more tokens")));
        return false;
    }

    private static bool StartsSequence(IReadOnlyList<TokenPreview> tokens, int i) => i > 0 && tokens[i].Sequence != tokens[i - 1].Sequence;

    private void Sequence(IReadOnlyList<TokenPreview> tokens, int i)
    {
        if (StartsSequence(tokens, i)) output.WriteLine(In(Dim, string.Create(CultureInfo.InvariantCulture, $"\n── sequence {tokens[i].Sequence} of the row ──")));
    }

    private void Count(IReadOnlyList<TokenPreview> tokens) =>
        output.WriteLine(In(Dim, string.Create(CultureInfo.InvariantCulture, $"{tokens.Count} tokens, of which the loss sees {tokens.Count(t => t.Label)}{(colours ? " (green)" : " («»)")}")));

    private string In(string style, string text) => colours ? $"{style}{text}{Reset}" : text;

    private static string Safe(string text) => text.Any(c => char.IsControl(c) && c is not ('\n' or '\t')) ? string.Concat(text.Select(c => c is '\n' or '\t' ? c : Picture(c))) : text;

    /// <summary>On one line.</summary>
    private static string Line(string text) => string.Concat(text.Select(c => c switch { '\n' => '↵', '\t' => '⇥', _ => Picture(c) }));

    /// <summary>Unicode has a picture of each control character of ASCII.</summary>
    private static char Picture(char c) => c < ' ' ? (char)('\u2400' + c) : c == '\u007f' ? '\u2421' : char.IsControl(c) ? '\ufffd' : c;
}
