using NopeGpt.Data.Documents;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests;

public sealed class TextFilesTests
{
    [Fact]
    public void A_text_file_is_split_at_lines_that_are_exactly_the_separator()
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["a.txt"], "one\n\ntwo\n<|endoftext|>\nthree <|endoftext|> four\n<|endoftext|>\n<|endoftext|>\n <|endoftext|>");
        Assert.Equal(["one\n\ntwo", "three <|endoftext|> four", " <|endoftext|>"], TextFiles.Documents(folder["a.txt"]));
    }

    [Fact]
    public void A_text_file_without_separator_is_one_document_and_an_empty_one_is_none()
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["a.txt"], "one\r\ntwo\r\n");
        File.WriteAllText(folder["b.txt"], "");
        Assert.Equal(["one\ntwo"], TextFiles.Documents(folder["a.txt"]));
        Assert.Empty(TextFiles.Documents(folder["b.txt"]));
    }

    [Fact]
    public void A_jsonl_file_has_a_document_a_line()
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["a.jsonl"], "{\"text\": \"one\\ntwo \\u00e9 \\ud83d\\ude00\", \"source\": 1}\n\n{\"text\": \"\"}\n{\"id\": 3, \"text\": \"three\"}");
        Assert.Equal(["one\ntwo é 😀", "three"], TextFiles.Documents(folder["a.jsonl"]));
    }

    [Theory]
    [InlineData("{\"text\": \"a\"}\n{\"text\": ")]
    [InlineData("{\"text\": \"a\"}\n{\"txt\": \"b\"}")]
    [InlineData("{\"text\": \"a\"}\n{\"text\": 5}")]
    [InlineData("{\"text\": \"a\"}\n[1, 2]")]
    [InlineData("{\"text\": \"a\"}\n{\"text\": \"\\ud800\"}")]
    public void A_bad_line_is_named_by_file_and_line(string content)
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["bad.jsonl"], content);
        InvalidDataException error = Assert.Throws<InvalidDataException>(() => TextFiles.Documents(folder["bad.jsonl"]).ToList());
        Assert.Contains("bad.jsonl, line 2:", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_file_and_another_ending_are_named()
    {
        using TemporaryFolder folder = new();
        Assert.Contains("none.txt", Assert.Throws<FileNotFoundException>(() => TextFiles.Documents(folder["none.txt"])).Message, StringComparison.Ordinal);
        File.WriteAllText(folder["a.doc"], "x");
        Assert.Contains("must end in .txt, .text, .jsonl", Assert.Throws<ArgumentException>(() => TextFiles.Documents(folder["a.doc"])).Message, StringComparison.Ordinal);
    }
}
