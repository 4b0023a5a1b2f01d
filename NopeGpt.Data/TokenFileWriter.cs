using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace NopeGpt.Data;

/// <summary>Writes a token file document by document, under a temporary name until it is complete. Not safe for concurrent use.</summary>
public sealed class TokenFileWriter : IDisposable
{
    private readonly int _vocabularySize;
    private readonly string _tokenizerHash;
    private readonly EndOfText _endOfText;
    private readonly AsideFile _aside;
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private readonly List<long> _starts = [];
    private byte[] _buffer = new byte[1 << 16];
    private long _count, _textBytes;
    private bool _complete;

    /// <param name="path">the file to write; an existing one is replaced when complete</param>
    /// <param name="vocabularySize">ids are below it; up to 65,536 they take two bytes each, beyond it four</param>
    /// <param name="tokenizerHash"><see cref="Tokenization.Tokenizer.Hash"/>, at most 64 ASCII characters</param>
    /// <param name="endOfText">where the documents to come have their end-of-text token; it is only noted</param>
    /// <exception cref="ArgumentException">The size is not positive, or the hash is too long.</exception>
    public TokenFileWriter(string path, int vocabularySize, string tokenizerHash, EndOfText endOfText = EndOfText.After)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(tokenizerHash);
        if (TokenFileLayout.Problem(vocabularySize, tokenizerHash) is { } problem) throw new ArgumentException(problem, nameof(vocabularySize));
        (_vocabularySize, _tokenizerHash, _endOfText) = (vocabularySize, tokenizerHash, endOfText);
        _aside = new AsideFile(path);
        _aside.Stream.Write(new byte[TokenFileLayout.HeaderBytes]);
    }

    /// <summary>Adds a document; its end-of-text token, if wanted, is already in it.</summary>
    /// <param name="document">its ids</param>
    /// <param name="textBytes">UTF-8 bytes of the text that they came from</param>
    /// <exception cref="ArgumentException">An id is not in the vocabulary; nothing of the document is written.</exception>
    public void Append(ReadOnlySpan<int> document, long textBytes)
    {
        if (_complete) throw new InvalidOperationException("The token file is complete; nothing can be added to it.");
        ArgumentOutOfRangeException.ThrowIfNegative(textBytes);
        int length = checked(document.Length * TokenFileLayout.WidthFor(_vocabularySize));
        if (_buffer.Length < length) _buffer = new byte[length];
        Span<byte> bytes = _buffer.AsSpan(0, length);
        if (TokenFileLayout.Pack(document, _vocabularySize, bytes) is { } wrong)
            throw new ArgumentException($"The id {wrong} of document {_starts.Count} is not in the vocabulary of {_vocabularySize} tokens.", nameof(document));
        Write(bytes);
        _starts.Add(_count);
        _count += document.Length;
        _textBytes += textBytes;
    }

    /// <summary>Writes index, checksum and header, flushes to the disk and gives the file its name.</summary>
    public void Complete()
    {
        if (_complete) throw new InvalidOperationException("The token file is complete already.");
        TokenFileLayout layout = new(_vocabularySize, _count, _starts.Count, _textBytes, _tokenizerHash, _endOfText, new byte[SHA256.HashSizeInBytes]);
        Write(new byte[layout.IndexAt - TokenFileLayout.HeaderBytes - (_count * layout.Width)]);
        // The format is little-endian, and so is every machine that this runs on (linux-x64).
        Write(MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(_starts)));
        _hash.AppendData(layout.WithoutChecksum());
        layout = layout with { Checksum = _hash.GetHashAndReset() };
        _aside.Stream.Position = 0;
        _aside.Stream.Write(layout.Write());
        _aside.Complete();
        _complete = true;
    }

    /// <summary>Without <see cref="Complete"/> before it, the temporary file is deleted and there is no file.</summary>
    public void Dispose()
    {
        _aside.Dispose();
        _hash.Dispose();
    }

    private void Write(ReadOnlySpan<byte> bytes)
    {
        _aside.Stream.Write(bytes);
        _hash.AppendData(bytes);
    }
}
