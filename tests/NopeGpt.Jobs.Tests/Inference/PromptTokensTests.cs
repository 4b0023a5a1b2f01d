using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Tests.Inference;

public sealed class PromptTokensTests(TinyStore store) : IClassFixture<TinyStore>
{
    private const int Wide = 10_000;
    private readonly Tokenizer _tokenizer = Tokenizer.Load(store.TokenizerFile);

    [Fact]
    public void A_base_model_continues_the_text_of_the_user()
    {
        PromptTokens prompt = PromptTokens.Create(_tokenizer, [new("user", "Once upon a time ")], Wide);
        Assert.Equal([_tokenizer.EndOfTextId, .. _tokenizer.Encode("Once upon a time")], prompt.Tokens);
        Assert.Equal([_tokenizer.EndOfTextId], prompt.StopIds);
    }

    [Theory]
    [InlineData(true, "the end.")]
    [InlineData(true, "the end, said nobody")]
    [InlineData(null, "\"The end!\"")]
    public void A_reply_that_had_ended_is_followed_by_the_end_of_its_document(bool? ended, string reply)
    {
        PromptTokens prompt = PromptTokens.Create(_tokenizer, [new("user", "Once"), new("assistant", " " + reply, ended), new("user", "Then")], Wide);
        Assert.Equal([_tokenizer.EndOfTextId, .. _tokenizer.Encode("Once " + reply), _tokenizer.EndOfTextId, .. _tokenizer.Encode("Then")], prompt.Tokens);
    }

    [Theory]
    [InlineData(false, " there was.", "Once there was. a dog")]
    [InlineData(null, " there was", "Once there was a dog")]
    [InlineData(null, " there was ", "Once there was a dog")]
    public void A_reply_that_had_not_ended_goes_on_with_the_next_text(bool? ended, string reply, string expected)
    {
        PromptTokens prompt = PromptTokens.Create(_tokenizer, [new("user", "Once"), new("assistant", reply, ended), new("user", "a dog")], Wide);
        Assert.Equal([_tokenizer.EndOfTextId, .. _tokenizer.Encode(expected)], prompt.Tokens);
    }

    [Fact]
    public void The_newest_tokens_are_kept_where_the_context_is_too_short()
    {
        IReadOnlyList<int> whole = PromptTokens.Create(_tokenizer, [new("user", "A long beginning of a story that goes on")], Wide).Tokens;
        Assert.Equal(whole.TakeLast(5), PromptTokens.Create(_tokenizer, [new("user", "A long beginning of a story that goes on")], 5).Tokens);
    }

    [Fact]
    public void An_empty_prompt_is_the_beginning_of_a_document()
    {
        Assert.Equal([_tokenizer.EndOfTextId], PromptTokens.Continue(_tokenizer, "", Wide).Tokens);
        Assert.Equal(_tokenizer.Encode("Hello "), PromptTokens.Continue(_tokenizer, "Hello ", Wide).Tokens);
    }
}
