using System.Text;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using NopeGpt.Web.Tokens;

namespace NopeGpt.Web.Tests.Tokens;

public sealed class TokenTrialTests
{
    private static readonly Tokenizer Cl100k = Tokenizer.Load("cl100k_base");

    // A tokenizer without merges: every byte is a token.
    private static readonly Tokenizer Bytes = BytePairTrainer.Train([], 257);

    [Fact]
    public void Tokens_have_their_ids_bytes_and_visible_text()
    {
        TokenTrial trial = TokenTrial.Of(Cl100k, "hello world\n", specials: false);
        Assert.Equal([("hello", 15339, "68 65 6C 6C 6F"), ("·world", 1917, "20 77 6F 72 6C 64"), ("⏎\n", 198, "0A")], trial.Pieces.Select(p => (p.Text, p.Id, p.Hex)));
        Assert.Equal((3, 12, 12, 4.0), (trial.Tokens, trial.Bytes, trial.Characters, trial.BytesPerToken));
    }

    [Fact]
    public void Special_tokens_are_one_where_they_are_allowed_and_text_where_not()
    {
        TokenPiece special = Assert.Single(TokenTrial.Of(Cl100k, "<|endoftext|>", specials: true).Pieces);
        Assert.Equal((100257, "<|endoftext|>", true), (special.Id, special.Text, special.Special));
        TokenTrial text = TokenTrial.Of(Cl100k, "<|endoftext|>", specials: false);
        Assert.Equal(Cl100k.Encode("<|endoftext|>"), text.Pieces.Select(p => p.Id));
        Assert.DoesNotContain(text.Pieces, p => p.Special);
    }

    [Fact]
    public void Parts_of_a_character_are_shown_as_bytes_and_say_of_which()
    {
        TokenTrial trial = TokenTrial.Of(Bytes, "a😀é", specials: false);
        Assert.Equal(["a", "⟨F0⟩", "⟨9F⟩", "⟨98⟩", "⟨80⟩", "⟨C3⟩", "⟨A9⟩"], trial.Pieces.Select(p => p.Text));
        Assert.Equal(["", "😀", "😀", "😀", "😀", "é", "é"], trial.Pieces.Select(p => p.PartOf));
        Assert.Equal((7, 7, 3), (trial.Tokens, trial.Bytes, trial.Characters));
        // The last one that is shown knows its character all the same.
        Assert.Equal("😀", TokenTrial.Of(Bytes, "a😀é", specials: false, most: 2).Pieces[1].PartOf);
    }

    [Fact]
    public void Only_the_first_tokens_are_shown_and_all_are_counted()
    {
        TokenTrial trial = TokenTrial.Of(Bytes, new string('x', 9000), specials: false);
        Assert.Equal((9000, TokenTrial.MostShown), (trial.Tokens, trial.Pieces.Count));
        TokenTrial nothing = TokenTrial.Of(Bytes, "", specials: true);
        Assert.Equal((0, 0, 0, 0.0), (nothing.Tokens, nothing.Pieces.Count, nothing.Bytes, nothing.BytesPerToken));
    }

    [Theory]
    [InlineData("\u0000\t\r\u007f", "␀→␍␡")]
    [InlineData("\u00a0\u200b\u202e\u0085", "⟨U+00A0⟩⟨U+200B⟩⟨U+202E⟩⟨U+0085⟩")]
    [InlineData("\u0301e\u0301", "◌\u0301e\u0301")]
    [InlineData("\u2764\ufe0f", "\u2764\ufe0f")]
    [InlineData("\ufe0f", "⟨U+FE0F⟩")]
    public void Nothing_in_a_text_hides(string text, string shown)
    {
        StringBuilder visible = new();
        foreach (Rune rune in text.EnumerateRunes()) VisibleText.Append(visible, rune);
        Assert.Equal(shown, visible.ToString());
    }

    [NeedsFact(Needs.SharedData)]
    public void Shown_bytes_are_those_of_the_text_in_any_script()
    {
        foreach (string line in File.ReadLines(Needs.Data("tokenizers/golden-encodings.jsonl")))
        {
            string text = System.Text.Json.JsonDocument.Parse(line).RootElement.GetProperty("text").GetString()!;
            foreach (Tokenizer tokenizer in new[] { Cl100k, Bytes })
            {
                TokenTrial trial = TokenTrial.Of(tokenizer, text, specials: false);
                string hex = string.Concat(trial.Pieces.Select(p => p.Hex.Replace(" ", "", StringComparison.Ordinal)));
                Assert.Equal(Convert.ToHexString(Encoding.UTF8.GetBytes(text)), hex);
                Assert.DoesNotContain(trial.Pieces, p => p.Text.Length == 0 || p.Text.Any(c => c != '\n' && char.IsControl(c)));
            }
        }
    }
}
